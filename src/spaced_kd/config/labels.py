"""A run's labels: its plug-ins, its protocol and its recipe, as rows have them."""

import contextlib
import re
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
        "recipe": " ".join(f"{key}={recipe[key]}".replace(" ", "") for key in sorted(recipe)),
    }


def interval_name(interval: float | str) -> str:
    """An interval as rows have it.

    >>> interval_name(0.0), interval_name(1.5), interval_name("max")
    ('0', '1.5', 'max')
    """
    return interval if isinstance(interval, str) else f"{interval:g}"


def label_parts(label: str) -> tuple[str, dict[str, str]]:
    """A plug-in's label taken apart into its name and settings; older rows separate settings by spaces.

    >>> label_parts("online_kd[lead=constant,target=before]")
    ('online_kd', {'lead': 'constant', 'target': 'before'})
    """
    name, _, settings = label.removesuffix("]").partition("[")
    words = re.split(r"[ ,](?=[a-z_0-9]+=)", settings) if settings else []
    return name, dict(word.partition("=")[::2] for word in words)


def recipe_words(recipe: str) -> dict[str, str]:
    """Words of a recipe without those that leave it the paper's: {"epochs": "10"}."""
    words = dict(word.partition("=")[::2] for word in recipe.split())
    return {key: value for key, value in words.items() if key not in SILENT}


CHAIN = " > "  # stands between them where both are named
TEXTBOOK = "textbook"  # the protocol whose switches are the defaults


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
