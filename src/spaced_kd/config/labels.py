"""A run's labels: its plug-ins, protocol and recipe as text in rows; no other module parses that text."""

import contextlib
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaced_kd.config import presets
from spaced_kd.config.registry import TEACHING
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.utils.errors import UserError

# keys of a run that the column recipe leaves out
OUTSIDE_RECIPE = ("dataset", "network", "teacher", "assistant", "method", "seed", "interval")
SILENT = ("eval_every", "tail_evaluations", "threads")  # settings that do not make a recipe differ from the paper's
MIXED = "mixed"  # protocol of a run that has switches of several protocols and all of none


def labels(run: RunSpec) -> dict[str, str]:
    """Labels of a run's rows: plug-ins and recipe by what differs from its protocol, which the recipe names.

    So the released code's online KD is `online_kd` with the recipe `protocol=released`. A run that follows no protocol
    in all switches is named by the nearest one and the switches that differ, as `online_kd[feature_loss=mse]` with the
    recipe `protocol=paper`; its `protocol` is `mixed`.
    """
    followed = protocols_of(run)
    name, overrides = next(((name, bare.changed()) for name, bare in followed.items()), None) or nearest(run)
    recipe = {key: value for key, value in overrides.items() if key.partition(".")[0] not in OUTSIDE_RECIPE}
    if name != TEXTBOOK:
        recipe["protocol"] = name
    return {
        "dataset": run.label("dataset", overrides),
        "network": run.label("network", overrides),
        "teacher": CHAIN.join(run.label(role, overrides) for role in TEACHING if role == "teacher" or run.assistant),
        "method": run.label("method", overrides),
        "interval": "" if run.method == "baseline" else interval_name(run.interval),
        "protocol": " ".join(followed) or MIXED,
        "recipe": str(Recipe({key: str(value).replace(" ", "") for key, value in recipe.items()})),
    }


def interval_name(interval: float | str) -> str:
    """An interval as rows have it.

    >>> interval_name(0.0), interval_name(1.5), interval_name("max")
    ('0', '1.5', 'max')
    """
    return interval if isinstance(interval, str) else f"{interval:g}"


@dataclass(frozen=True)
class Label:
    """A plug-in with what differs from its defaults.

    name: of the plug-in; settings: by key, as text.
    """

    name: str
    settings: dict[str, str]

    @classmethod
    def read(cls, text: str) -> "Label":
        """From the text of a row; older rows separate settings by spaces.

        >>> Label.read("online_kd[lead=constant,target=before]")
        Label(name='online_kd', settings={'lead': 'constant', 'target': 'before'})
        """
        name, _, settings = text.removesuffix("]").partition("[")
        return cls(name, _pairs(re.split(r"[ ,](?=[a-z_0-9]+=)", settings) if settings else []))

    def __str__(self) -> str:
        """As rows have it, settings sorted."""
        settings = ",".join(f"{key}={self.settings[key]}" for key in sorted(self.settings))
        return f"{self.name}[{settings}]" if settings else self.name


CHAIN = " > "  # between teacher and assistant
TEXTBOOK = "textbook"  # the protocol whose switches are the defaults


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, besides its plug-ins, that differ from the defaults.

    settings: key -> value, as text; the key `protocol` names the reading that the run follows.
    """

    settings: dict[str, str]

    @classmethod
    def read(cls, text: str) -> "Recipe":
        """From the text of a row.

        >>> Recipe.read("epochs=10 protocol=released")
        Recipe(settings={'epochs': '10', 'protocol': 'released'})
        """
        return cls(_pairs(text.split()))

    def __str__(self) -> str:
        """As rows have it, settings sorted."""
        return " ".join(f"{key}={self.settings[key]}" for key in sorted(self.settings))

    @property
    def epochs(self) -> str:
        """Number of epochs, or a multiple such as "x2" of the epochs of the setting that an arm is compared in."""
        return self.settings.get("epochs", str(RunSpec.epochs))

    @property
    def reading(self) -> str:
        """The reading of the paper (protocol) that the run follows."""
        return self.settings.get("protocol", TEXTBOOK)

    @property
    def telling(self) -> dict[str, str]:
        """The settings without those that do not make a recipe differ from the paper's."""
        return self.without(SILENT).settings

    def without(self, keys: Container[str]) -> "Recipe":
        """The recipe with these keys at their defaults."""
        return Recipe({key: value for key, value in self.settings.items() if key not in keys})

    def under(self, reading: str) -> "Recipe":
        """The recipe under another reading; the default reading is not named."""
        named = {"protocol": reading} if reading != TEXTBOOK else {}
        return Recipe(self.without(("protocol",)).settings | named)


def _pairs(texts: list[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)


def protocols_of(spec: RunSpec, protocols: Path = presets.PROTOCOLS) -> dict[str, RunSpec]:
    """Protocols all of whose switches the run has, `textbook` first -> the run without these switches.

    Empty if the run mixes switches of several protocols. If no protocol has switches for the method, the run follows
    the first protocol.
    """
    names = _names(protocols)
    telling = _telling(spec, protocols)
    if not telling:
        return dict.fromkeys(names[:1], spec)
    of_textbook = presets.keys(TEXTBOOK, spec.method, protocols, TEACHING) if TEXTBOOK in names else set()
    found = {}
    for name in telling:
        switches = presets.keys(name, spec.method, protocols, TEACHING)
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        with contextlib.suppress(UserError):  # the run's other keys contradict this protocol, or textbook
            # a switch that the protocol does not name has textbook's value
            if not bare.keys() & of_textbook and from_flat(bare | {"protocol": name}, protocols).id == spec.id:
                found[name] = from_flat(bare)
    return found


def nearest(spec: RunSpec, protocols: Path = presets.PROTOCOLS) -> tuple[str, dict[str, Any]]:
    """The protocol from which a run differs in the fewest switches, and the run's overrides relative to it.

    The overrides are keys that are not switches, and the switches that differ, also those with a default value;
    `textbook` if no other protocol is nearer.
    """
    distances = {}
    for name in _telling(spec, protocols):
        switches = set().union(*(presets.keys(each, spec.method, protocols, TEACHING) for each in {name, TEXTBOOK}))
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        with contextlib.suppress(UserError):  # the run's other keys contradict this protocol
            other = from_flat(bare | {"protocol": name}, protocols).changed()
            differing = {key for key in {*spec.changed(), *other} if spec.changed().get(key) != other.get(key)}
            distances[name] = (len(differing), bare | {key: spec.value(key) for key in sorted(differing)})
    name = min(distances, key=lambda name: distances[name][0], default=TEXTBOOK)  # of equal ones the first: textbook
    return name, spec.changed() if name == TEXTBOOK else distances[name][1]


def _names(protocols: Path) -> list[str]:
    """All protocols, `textbook` first."""
    return sorted(presets.protocol_names(protocols), key=lambda name: (name != TEXTBOOK, name))


def _telling(spec: RunSpec, protocols: Path) -> list[str]:
    """The protocols that have switches for the run's method."""
    return [name for name in _names(protocols) if presets.has(name, spec.method, protocols)]
