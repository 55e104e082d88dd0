"""Switches: what each difference between `textbook` and the released code's loops is worth alone.

Change of top-1 test accuracy at the last epoch in percentage points when one switch takes the released code's value,
against `textbook`: mean ± standard deviation over seeds (number of seeds), taken seed by seed, and its paired 95 %
interval. The intervals are not adjusted: where nothing has any effect, one of twenty excludes 0. The columns
are KD without spacing (s = 0), with it (s = 1.5 for online KD, 4 for self KD), what spacing brings (the second less the
first), and offline KD. A switch that exists at one of the two intervals alone leaves the other as it is. Switches are
ranked by the largest of these changes, those of a single seed last; all of them together end the list. Letters are
those of docs/reference/switches.md.
"""

from typing import Any

from pandas import DataFrame, Series

from spaced_kd.analysis.arms import ANY, NAMED, OFFLINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm, arm
from spaced_kd.analysis.effects import PairedDifferences, Place, accuracies, difference, places, without_one_recipe
from spaced_kd.analysis.layout import NOTHING
from spaced_kd.analysis.statistics import shared_seeds
from spaced_kd.config.run_spec import from_flat
from spaced_kd.utils.errors import UserError

LETTERS = {
    "online_kd": {
        **{"method.soft_loss": "O1", "method.square_temperature": "O2", "method.feature_loss": "O4"},
        **{"method.adapter": "O5", "method.target": "O6", "method.teacher_mode": "O7", "initial_weights": "O9"},
        **{"method.last_block": "O10", "clock": "O10", "method.student_batches": "O12", "batch_norm": "O15"},
    },
    "self_kd": {
        **{"method.reported_head": "S3", "method.first_block": "S6", "method.last_block": "S6"},
        **{"method.trigger_batch": "S7", "method.soft_loss": "S8", "method.square_temperature": "S8"},
        **{"method.feature_loss": "S9", "method.feature_skips": "S9", "method.idle_heads": "S10", "clock": "O10"},
        **{"batch_norm": "O15", "augmentation": "S1"},
    },
}
BASES = {  # column -> the arm without the switch
    "online_kd": {"s = 0": ONLINE, "s > 0": SPACED, "s = max": OFFLINE},
    "self_kd": {"s = 0": SELF, "s > 0": SPACED_SELF},
}
LOOPS = "released_loop_only"  # the protocol whose values are tried
ELSEWHERE = {"batch_norm": "halves", "augmentation": "autoaugment_cutout"}  # on two GPUs; on CIFAR-100
SPACING = "what spacing brings"  # accuracy at s > 0 less that at s = 0
COLUMNS = ("s = 0", "s > 0", SPACING, "s = max")


def table(rows: DataFrame) -> DataFrame:
    """A line for each switch that was run, ranked, and one for the released loops' whole set."""
    rows, lines = accuracies(rows), []
    for place in places(rows):
        if "protocol=" in place.recipe:  # of a whole set, whose effect stands with textbook's setting
            continue
        for method, letters in LETTERS.items():
            found = [
                (f"{key}: {value}".lower(), letters[key], _effects(rows, place, method, {key: value}))
                for key, value in _alone(method).items()
            ]
            found.sort(key=lambda line: _largest(line[2]), reverse=True)
            found.append((f"all of them: protocol {LOOPS}", NOTHING, _effects(rows, place, method)))
            for switch, letter, effects in found:
                if any(effect.seeds for effect in effects.values()):
                    line = place._asdict() | {"method": method, "switch": switch, "letter": letter}
                    lines.append(line | {column: effect.told() for column, effect in effects.items()})
    if not lines:
        raise UserError("switches needs runs of config/experiments/released_code.yaml: add them, or leave switches out")
    table = without_one_recipe(lines).fillna(NOTHING)
    return table[[*(column for column in table if column not in COLUMNS), *(c for c in COLUMNS if c in table)]]


def _alone(method: str) -> dict[str, Any]:
    """Each switch with its value in the released code."""
    found = dict(ELSEWHERE)
    for base in BASES[method].values():
        found = _released(method, base) | found
    return {key: found[key] for key in LETTERS[method]}


def _released(method: str, base: Arm) -> dict[str, Any]:
    """What the released loops set otherwise than `textbook`, whose values are the defaults, at an arm's interval."""
    words = from_flat(ANY | {"method": method, "interval": _interval(base), "protocol": LOOPS}).changed()
    return {key: value for key, value in words.items() if key not in NAMED}


def _effects(
    rows: DataFrame, place: Place, method: str, only: dict[str, Any] | None = None
) -> dict[str, PairedDifferences]:
    """Column -> what one switch, or all of the released code's, change there."""
    effects = {}
    for column, base in BASES[method].items():
        given = _released(method, base)
        if only is not None:
            given = {key: value for key, value in only.items() if key in given or key in ELSEWHERE}
        if given:
            switched = arm({"method": method, "interval": _interval(base)} | given)
            effects[column] = difference(rows, place, switched, base)
    return effects | {SPACING: _of_spacing(effects.get("s = 0"), effects.get("s > 0"))}


def _of_spacing(plain: PairedDifferences | None, spaced: PairedDifferences | None) -> PairedDifferences:
    """The change of what spacing brings; an interval at which there is no such switch has no change."""
    if plain and spaced:
        return PairedDifferences((spaced.values - plain.values).dropna(), shared_seeds(spaced.seeds, plain.seeds))
    if plain:
        return PairedDifferences(-plain.values, plain.seeds)
    return spaced or PairedDifferences(Series(dtype=float), set())


def _largest(effects: dict[str, PairedDifferences]) -> tuple[bool, float]:
    """Sort key: one seed tells less than any number of them."""
    found = [(len(values) > 1, abs(values.mean())) for values, _ in effects.values() if len(values)]
    return max(found, default=(False, 0.0))


def _interval(base: Arm) -> float | str:
    return "max" if base == OFFLINE else base.epochs
