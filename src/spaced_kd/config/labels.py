"""A run's labels: its plug-ins, its protocol and its recipe, as rows have them."""

import contextlib
from pathlib import Path

from spaced_kd.config import presets
from spaced_kd.config.registry import TEACHING
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.utils.errors import UserError

# what of a run is not in the column recipe
OUTSIDE_RECIPE = ("dataset", "network", "teacher", "assistant", "method", "seed", "interval")
MIXED = "mixed"  # protocol of a run that has some switches of one, and some of another


def labels(run: RunSpec) -> dict[str, str]:
    """What a run's rows are found by: plug-ins and recipe by what differs from its protocol, which the recipe names.

    So the released code's online KD is `online_kd` with the recipe `protocol=released`; with some of its switches it is
    textbook's with those in its labels, and `protocol` says `mixed`.
    """
    followed = protocols_of(run)
    name, bare = next(iter(followed.items()), (MIXED, run))
    recipe = {key: value for key, value in bare.changed().items() if key.partition(".")[0] not in OUTSIDE_RECIPE}
    if name not in (TEXTBOOK, MIXED):
        recipe["protocol"] = name
    return {
        "dataset": bare.label("dataset"),
        "network": bare.label("network"),
        "teacher": CHAIN.join(bare.label(role) for role in TEACHING if role == "teacher" or run.assistant),
        "method": bare.label("method"),
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


CHAIN = " > "  # stands between them where both are named
TEXTBOOK = "textbook"  # the protocol whose switches are the defaults


def protocols_of(spec: RunSpec, protocols: Path = presets.PROTOCOLS) -> dict[str, RunSpec]:
    """Protocols whose switches the run has, `textbook` first, each with what the run would be without them.

    None where it has some of one's and some of another's. Of a method of which no protocol says anything, runs have
    the first one's.
    """
    names = sorted(presets.protocol_names(protocols), key=lambda name: (name != TEXTBOOK, name))
    telling = [name for name in names if presets.has(name, spec.method, protocols)]
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
