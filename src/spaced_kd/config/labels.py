"""A run's labels: its plug-ins, its protocol and its recipe, as rows have them; the only place that reads such text."""

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

# what of a run is not in the column recipe
OUTSIDE_RECIPE = ("dataset", "network", "teacher", "assistant", "method", "seed", "interval")
SILENT = ("eval_every", "tail_evaluations", "threads")  # words of a recipe that leave it the paper's
MIXED = "mixed"  # protocol of a run that has some switches of one, and some of another


def labels(run: RunSpec) -> dict[str, str]:
    """What a run's rows are found by: plug-ins and recipe by what differs from its protocol, which the recipe names.

    So the released code's online KD is `online_kd` with the recipe `protocol=released`. A run that has all switches of
    none is named by the nearest protocol and its own switches, as `online_kd[feature_loss=mse]` with the recipe
    `protocol=paper`, and `protocol` says `mixed`.
    """
    followed = protocols_of(run)
    name, words = next(((name, bare.changed()) for name, bare in followed.items()), None) or nearest(run)
    recipe = {key: value for key, value in words.items() if key.partition(".")[0] not in OUTSIDE_RECIPE}
    if name != TEXTBOOK:
        recipe["protocol"] = name
    return {
        "dataset": run.label("dataset", words),
        "network": run.label("network", words),
        "teacher": CHAIN.join(run.label(role, words) for role in TEACHING if role == "teacher" or run.assistant),
        "method": run.label("method", words),
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
        words = re.split(r"[ ,](?=[a-z_0-9]+=)", settings) if settings else []
        return cls(name, _pairs(words))

    def __str__(self) -> str:
        """As rows have it, settings sorted."""
        settings = ",".join(f"{key}={self.settings[key]}" for key in sorted(self.settings))
        return f"{self.name}[{settings}]" if settings else self.name


CHAIN = " > "  # stands between them where both are named
TEXTBOOK = "textbook"  # the protocol whose switches are the defaults


@dataclass(frozen=True)
class Recipe:
    """What of a run differs from the defaults besides its plug-ins.

    words: key -> value, as text; the reading that a run follows stands among them as `protocol`.
    """

    words: dict[str, str]

    @classmethod
    def read(cls, text: str) -> "Recipe":
        """From the text of a row.

        >>> Recipe.read("epochs=10 protocol=released")
        Recipe(words={'epochs': '10', 'protocol': 'released'})
        """
        return cls(_pairs(text.split()))

    def __str__(self) -> str:
        """As rows have it, words sorted."""
        return " ".join(f"{key}={self.words[key]}" for key in sorted(self.words))

    @property
    def epochs(self) -> str:
        """Number of epochs; as "x2" a multiple of whatever setting an arm is compared in."""
        return self.words.get("epochs", str(RunSpec.epochs))

    @property
    def reading(self) -> str:
        """The reading of the paper (protocol) that it follows."""
        return self.words.get("protocol", TEXTBOOK)

    @property
    def telling(self) -> dict[str, str]:
        """Its words without those that leave it the paper's."""
        return self.without(SILENT).words

    def without(self, keys: Container[str]) -> "Recipe":
        """The recipe with the defaults of these keys."""
        return Recipe({key: value for key, value in self.words.items() if key not in keys})

    def under(self, reading: str) -> "Recipe":
        """The recipe by another reading; the default one is not named."""
        named = {"protocol": reading} if reading != TEXTBOOK else {}
        return Recipe(self.without(("protocol",)).words | named)


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


def protocols_of(spec: RunSpec, protocols: Path = presets.PROTOCOLS) -> dict[str, RunSpec]:
    """Protocols whose switches the run has, `textbook` first, each with what the run would be without them.

    None where it has some of one's and some of another's. Of a method of which no protocol says anything, runs have
    the first one's.
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
        with contextlib.suppress(UserError):  # what the run has besides contradicts this protocol, or textbook
            # a switch that the protocol does not name is textbook's
            if not bare.keys() & of_textbook and from_flat(bare | {"protocol": name}, protocols).id == spec.id:
                found[name] = from_flat(bare)
    return found


def nearest(spec: RunSpec, protocols: Path = presets.PROTOCOLS) -> tuple[str, dict[str, Any]]:
    """The protocol from which a run differs in the fewest switches, and the run in words beside that protocol.

    These are what it has besides switches, and the switches in which it differs, be it by a default; `textbook` where
    no other is nearer.
    """
    distances = {}
    for name in _telling(spec, protocols):
        switches = set().union(*(presets.keys(each, spec.method, protocols, TEACHING) for each in {name, TEXTBOOK}))
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        with contextlib.suppress(UserError):  # what the run has besides contradicts this protocol
            other = from_flat(bare | {"protocol": name}, protocols).changed()
            differing = {key for key in {*spec.changed(), *other} if spec.changed().get(key) != other.get(key)}
            distances[name] = (len(differing), bare | {key: spec.value(key) for key in sorted(differing)})
    name = min(distances, key=lambda name: distances[name][0], default=TEXTBOOK)  # the first of several, textbook
    return name, spec.changed() if name == TEXTBOOK else distances[name][1]


def _names(protocols: Path) -> list[str]:
    """All protocols, `textbook` first."""
    return sorted(presets.protocol_names(protocols), key=lambda name: (name != TEXTBOOK, name))


def _telling(spec: RunSpec, protocols: Path) -> list[str]:
    """The protocols that say anything of the run's method."""
    return [name for name in _names(protocols) if presets.has(name, spec.method, protocols)]
