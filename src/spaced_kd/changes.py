"""Arms from the words of a run, and the recipe that such an arm has in a setting."""

from typing import Any

from spaced_kd.cells import Arm
from spaced_kd.errors import UserError
from spaced_kd.results import interval_name
from spaced_kd.spec import RunSpec, from_flat

ANY = {"dataset": "digits", "network": "resnet_mini", "seed": 0}  # an arm's words are checked as those of a run are
NAMED = {*ANY, "method", "interval"}


def arm(given: dict[str, Any]) -> Arm:
    """The arm of words such as {"method": "self_kd", "interval": 0, "epochs": "x2"}; UserError where no run has them.

    `epochs: x2` is twice the epochs of whatever setting the arm is compared in.
    """
    times = given.get("epochs", "x1")
    factor(times)
    spec = from_flat(ANY | {key: value for key, value in given.items() if key != "epochs"})
    words = {key: value for key, value in spec.changed().items() if key not in NAMED and "." not in key}
    words |= {"epochs": times} if "epochs" in given else {}
    interval = "" if spec.method == "baseline" else interval_name(spec.interval)
    return Arm(spec.label("method"), interval, " ".join(f"{key}={words[key]}" for key in sorted(words)))


def factor(times: Any) -> float:
    """2 of "x2"; UserError where it is none."""
    try:
        value = float(times.removeprefix("x")) if str(times).startswith("x") else 0
    except ValueError:
        value = 0
    if not value > 0:
        raise UserError(f"epochs is {times!r}, but must be a multiple of the setting's: x2 is twice as many")
    return value


def changed(recipe: str, words: str) -> str:
    """A setting's recipe with an arm's own words: "epochs=10 lr=0.1" and "epochs=x2" give "epochs=20 lr=0.1".

    Epochs are rounded to whole ones. Words are sorted, and the default of epochs is left out, as in the rows.
    """
    if not words:
        return recipe
    found = _words(recipe)
    epochs = int(found.get("epochs", RunSpec.epochs))
    found |= _words(words)
    if "epochs" in _words(words):
        found["epochs"] = str(round(epochs * factor(found["epochs"])))
        if found["epochs"] == str(RunSpec.epochs):
            del found["epochs"]
    return " ".join(f"{key}={found[key]}" for key in sorted(found))


def _words(text: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in text.split())
