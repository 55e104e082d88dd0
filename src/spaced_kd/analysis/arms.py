"""Arms: a method with an interval and, where it differs, a recipe; contrasts: differences of two arms."""

from fractions import Fraction
from typing import Any, NamedTuple

from spaced_kd.analysis import human_names
from spaced_kd.config.labels import Recipe, labels
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.utils.errors import UserError


class Arm(NamedTuple):
    """The runs of a method with an interval: a column of a table, or a line of a figure."""

    method: str
    interval: str = ""
    recipe: str = ""  # settings in which its recipe differs from that of the setting, as "epochs=x2"

    @property
    def name(self) -> str:
        """Display name, e.g. "Spaced KD, s = 1.5"."""
        name = human_names.method_name(self.method, self.interval)
        return f"{name}, {human_names.recipe_text(self.recipe)}" if self.recipe else name

    @property
    def epochs(self) -> float:
        """Interval in epochs; infinite for offline KD, whose teacher has finished."""
        return float(self.interval.replace("max", "inf") or 0)


class Contrast(NamedTuple):
    """The differences of two arms, `after` minus `before`, taken seed by seed."""

    after: Arm
    before: Arm

    @property
    def name(self) -> str:
        """Display name of a column, e.g. "Δ to online KD"."""
        return f"Δ to {self.before.name}"


BASELINE = Arm("baseline")
ONLINE = Arm("online_kd", "0")
SPACED = Arm("online_kd", "1.5")
OFFLINE = Arm("online_kd", "max")
SELF = Arm("self_kd", "0")
SPACED_SELF = Arm("self_kd", "4")

ANY = {"dataset": "digits", "network": "resnet_mini", "seed": 0}  # completes an arm's keys to a run, to check them
NAMED = {*ANY, "method", "interval"}  # keys of a run that are not among its settings


def arm(given: dict[str, Any]) -> Arm:
    """The arm of keys such as {"method": "self_kd", "interval": 0, "epochs": "x2"}; UserError for an invalid key.

    `epochs: x2` is twice the epochs of the setting in which the arm is compared.
    """
    own = dict(given)
    times = own.pop("epochs", "x1")
    found = labels(from_flat(ANY | own))
    multiple = {"epochs": times} if factor(times) != 1 else {}
    recipe = Recipe(Recipe.read(found["recipe"]).settings | multiple)
    return Arm(found["method"], found["interval"], str(recipe))


def factor(times: Any) -> float:
    """The number 2 of "x2", or 7/3 of "x7/3"; UserError for another text."""
    try:
        value = float(Fraction(times.removeprefix("x"))) if str(times).startswith("x") else 0
    except (ValueError, ZeroDivisionError):
        value = 0
    if not value > 0:
        raise UserError(f"epochs is {times!r}, but must be a multiple of the setting's: x2 is twice as many")
    return value


def changed(recipe: str, own_settings: str) -> str:
    """A setting's recipe with an arm's own settings: "epochs=10 lr=0.1" and "epochs=x2" give "epochs=20 lr=0.1".

    Epochs are rounded to whole numbers. Settings are sorted, and the default of epochs is left out, as in the rows.
    """
    if not own_settings:
        return recipe
    found, own = Recipe.read(recipe), Recipe.read(own_settings)
    merged = found.settings | own.settings
    if "epochs" in own.settings:
        merged["epochs"] = str(round(int(found.epochs) * factor(own.epochs)))
        if merged["epochs"] == str(RunSpec.epochs):
            del merged["epochs"]
    return str(Recipe(merged))
