"""Switches: the effect of each of the released loops' differences to `textbook`, alone.

Change of top-1 test accuracy at the last epoch in percentage points when one switch takes the released code's value
instead of that of `textbook`. In a setting of another reading (protocol, in the recipe), one switch takes the value
shown, and accuracy is that of the tail where all runs have one. Changes are paired by seed: mean ± standard deviation
over seeds (number of seeds), and the paired 95 % interval of the mean. Intervals are not adjusted: without any effect,
one of twenty excludes 0. Columns are KD without spacing (s = 0), with spacing (s = 1.5 for online KD, 4 for self KD),
the effect of spacing (the second minus the first), and offline KD. A switch that exists at only one of the two
intervals leaves the other unchanged. Switches are ranked by their largest change; those with a single seed come last,
and all switches together end the list. Letters are those of docs/reference/switches.md.
"""

from typing import Any

from pandas import DataFrame, Series

from spaced_kd.analysis.arms import ANY, NAMED, OFFLINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm, arm
from spaced_kd.analysis.cells import NOTHING
from spaced_kd.analysis.effects import (
    PairedDifferences,
    PlainSetting,
    accuracies,
    difference,
    endpoint,
    plain_settings,
    reached,
    without_one_recipe,
)
from spaced_kd.analysis.statistics import shared_seeds
from spaced_kd.config import presets
from spaced_kd.config.labels import TEXTBOOK, Label, Recipe
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
ELSE = {  # letters of switches that the released loops of ResNets do not have
    **{"network.attention": "B2", "method.adapter": "B1", "network.initialisation": "B5", "standardisation": "B8"},
    **{"network.stem": "B9", "rotation": "B9"},
    **{"lr_clock": "C2", "last_batch": "C3", "interval_rounding": "C4", "weight_decay_on": "C1"},
    **{"method.temperature": "V3", "method.alpha": "V3", "method.beta": "V3", "network.distillation_token": "V4"},
    **{"method.second_forward": "V5", "method.joint_backward": "V7", "method.extra_step": "V10"},
}
BASES = {  # column -> the arm without the switch
    "online_kd": {"s = 0": ONLINE, "s > 0": SPACED, "s = max": OFFLINE},
    "self_kd": {"s = 0": SELF, "s > 0": SPACED_SELF},
}
LOOPS = "released_loop_only"  # the protocol whose values are tried
WHOLE_SETS = (LOOPS, "teacher_checkpoints")  # protocols that are not readings
ELSEWHERE = {"batch_norm": "halves", "augmentation": "autoaugment_cutout"}  # on two GPUs; on CIFAR-100
SPACING = "effect of spacing"  # accuracy at s > 0 minus that at s = 0
COLUMNS = ("s = 0", "s > 0", SPACING, "s = max")
Effects = dict[str, PairedDifferences]  # by column


def table(rows: DataFrame) -> DataFrame:
    """A line for each switch that was run, ranked, and one for the released loops' whole set."""
    rows, lines = accuracies(rows), []
    for setting in plain_settings(rows):
        reading = Recipe.read(setting.recipe).reading
        if reading in WHOLE_SETS:  # whose effect stands with textbook's setting
            continue
        for method, letters in LETTERS.items():
            found = _against_textbook(rows, setting, method) if reading == TEXTBOOK else _varied(rows, setting, method)
            ranked = sorted(found.items(), key=lambda line: _largest(line[1]), reverse=True)
            switches = [
                (f"{key}: {value}".lower(), (ELSE | letters).get(key, NOTHING), effects)
                for (key, value), effects in ranked
            ]
            if reading == TEXTBOOK:
                switches.append((f"all of them: protocol {LOOPS}", NOTHING, _effects(rows, setting, method)))
            for switch, letter, effects in switches:
                if any(effect.seeds for effect in effects.values()):
                    line = setting._asdict() | {"method": method, "switch": switch, "letter": letter}
                    lines.append(line | {column: effect.cell() for column, effect in effects.items()})
    if not lines:
        raise UserError("switches needs runs of config/experiments/released_code.yaml: add them, or leave switches out")
    table = without_one_recipe(lines).fillna(NOTHING)
    return table[[*(column for column in table if column not in COLUMNS), *(c for c in COLUMNS if c in table)]]


def _against_textbook(rows: DataFrame, setting: PlainSetting, method: str) -> dict[tuple[str, Any], Effects]:
    """Effects of the released loops' value of each switch: (key, value) -> effects by column."""
    return {(key, value): _effects(rows, setting, method, {key: value}) for key, value in _alone(method).items()}


def _varied(rows: DataFrame, setting: PlainSetting, method: str) -> dict[tuple[str, str], Effects]:
    """Effects of each switch in which some runs differ from the setting's reading: (key, value) -> effects."""
    columns: dict[tuple[str, str], Effects] = {}
    for column, base in BASES[method].items():
        for switch, varied in _one_switch_away(rows, setting, base).items():
            ends = [endpoint(rows, *each) for each in (varied, (setting, base))]
            selection = "tail" if set(ends) == {"tail"} else "last"
            after, before = reached(rows, *varied, selection), reached(rows, setting, base, selection)
            change = PairedDifferences((after.values - before.values).dropna(), shared_seeds(after.seeds, before.seeds))
            columns.setdefault(switch, {})[column] = change
    return {
        switch: effects | {SPACING: _of_spacing(effects.get("s = 0"), effects.get("s > 0"))}
        for switch, effects in columns.items()
    }


def _one_switch_away(
    rows: DataFrame, setting: PlainSetting, base: Arm
) -> dict[tuple[str, str], tuple[PlainSetting, Arm]]:
    """Runs that differ from an arm in a setting by one switch: (key, value) -> their setting and arm."""
    own = _words(setting.network, base.method, setting.recipe)
    switches = presets.keys(own["protocol"], base.method) | presets.keys(TEXTBOOK, base.method)
    there = rows[(rows["dataset"] == setting.dataset) & (rows["interval"] == base.interval)]
    found = {}
    for network, method, recipe in there[["network", "method", "recipe"]].drop_duplicates().itertuples(index=False):
        words = _words(network, method, recipe)
        further = [key for key in words if key not in own]
        if len(further) == 1 and further[0] in switches and own.items() <= words.items():
            key = further[0]
            found[key, words[key]] = (PlainSetting(setting.dataset, network, recipe), Arm(method, base.interval))
    return found


def _words(network: str, method: str, recipe: str) -> dict[str, str]:
    """Network, method and recipe of rows as flat keys: {"network": "resnet18", "network.width": "0.25", ...}."""
    found = dict(Recipe.read(recipe).settings)
    for role, text in (("network", network), ("method", method)):
        plugin = Label.read(text)
        found |= {role: plugin.name} | {f"{role}.{key}": value for key, value in plugin.settings.items()}
    return found


def _alone(method: str) -> dict[str, Any]:
    """Each switch with its value in the released code."""
    found = dict(ELSEWHERE)
    for base in BASES[method].values():
        found = _released(method, base) | found
    return {key: found[key] for key in LETTERS[method]}


def _released(method: str, base: Arm) -> dict[str, Any]:
    """The released loops' values that differ from `textbook`, whose values are the defaults, at an arm's interval."""
    changed = from_flat(ANY | {"method": method, "interval": _interval(base), "protocol": LOOPS}).changed()
    return {key: value for key, value in changed.items() if key not in NAMED}


def _effects(rows: DataFrame, setting: PlainSetting, method: str, only: dict[str, Any] | None = None) -> Effects:
    """Column -> effect of one switch, or of all of the released code's switches."""
    effects = {}
    for column, base in BASES[method].items():
        given = _released(method, base)
        if only is not None:
            given = {key: value for key, value in only.items() if key in given or key in ELSEWHERE}
        if given:
            switched = arm({"method": method, "interval": _interval(base)} | given)
            effects[column] = difference(rows, setting, switched, base)
    return effects | {SPACING: _of_spacing(effects.get("s = 0"), effects.get("s > 0"))}


def _of_spacing(plain: PairedDifferences | None, spaced: PairedDifferences | None) -> PairedDifferences:
    """The change of the effect of spacing; it is 0 at an interval at which the switch does not exist."""
    if plain and spaced:
        return PairedDifferences((spaced.values - plain.values).dropna(), shared_seeds(spaced.seeds, plain.seeds))
    if plain:
        return PairedDifferences(-plain.values, plain.seeds)
    return spaced or PairedDifferences(Series(dtype=float), set())


def _largest(effects: Effects) -> tuple[bool, float]:
    """Sort key: the largest change; effects of a single seed come last."""
    found = [(len(values) > 1, abs(values.mean())) for values, _ in effects.values() if len(values)]
    return max(found, default=(False, 0.0))


def _interval(base: Arm) -> float | str:
    return "max" if base == OFFLINE else base.epochs
