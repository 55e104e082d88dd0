"""Controls: Spaced KD and spaced self KD without one part, and w/o KD at equal cost.

Top-1 test accuracy of the control at the last epoch minus that of its reference, in percentage points, paired by seed:
mean ± standard deviation over seeds (number of seeds), and in brackets the paired interval. A negative value means that
the removed part helps. Intervals and p are adjusted after Holm over all controls of one setting, except the effect of
spacing as a whole (online KD, self KD), which the scorecard judges as well. FLOPs are those of training, teachers
included, as a ratio of control to reference.
"""

from typing import NamedTuple

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm
from spaced_kd.analysis.effects import (
    PlainSetting,
    accuracies,
    difference,
    family,
    flops,
    plain_settings,
    without_one_recipe,
)
from spaced_kd.analysis.queries import ours, present
from spaced_kd.config.labels import Recipe
from spaced_kd.utils.errors import UserError

FEATURE, SOFT, TRAILS = "[alpha=0.0]", "[beta=0.0]", "[alpha=0.0,beta=0.0]"  # what is left of the losses
OTHER_START = "initial_weights=different"
AUTOAUGMENT = "augmentation=autoaugment_cutout"  # which self KD has in the released code on CIFAR-100


class Control(NamedTuple):
    """A control, its reference, and what lies between them."""

    name: str
    apart: str
    arm: Arm
    reference: Arm


CONTROLS = (
    Control("online KD", "lead and freeze", ONLINE, SPACED),
    Control("teacher frozen at the block's start", "lead", Arm("online_kd[target=before]", "1.5"), SPACED),
    Control("constant lead of s/2", "freeze", Arm("online_kd[lead=constant]", "0.75"), SPACED),
    Control("student on new views", "familiar views", Arm("online_kd[student_batches=new_views]", "1.5"), SPACED),
    Control("student in a new order", "familiar batches", Arm("online_kd[student_batches=new]", "1.5"), SPACED),
    Control("other initial weights, s = 0", "same start", Arm("online_kd", "0", OTHER_START), ONLINE),
    Control("other initial weights, s = 1.5", "same start", Arm("online_kd", "1.5", OTHER_START), SPACED),
    Control("feature loss alone, s = 0", "soft loss", Arm(f"online_kd{FEATURE}", "0"), ONLINE),
    Control("feature loss alone, s = 1.5", "soft loss", Arm(f"online_kd{FEATURE}", "1.5"), SPACED),
    Control("soft loss alone, s = 0", "feature loss", Arm(f"online_kd{SOFT}", "0"), ONLINE),
    Control("soft loss alone, s = 1.5", "feature loss", Arm(f"online_kd{SOFT}", "1.5"), SPACED),
    Control("student only trails, s = 0", "both losses", Arm(f"online_kd{TRAILS}", "0"), ONLINE),
    Control("student only trails, s = 1.5", "both losses", Arm(f"online_kd{TRAILS}", "1.5"), SPACED),
    Control(
        *("feature loss alone, s = 0", "spacing, without the soft loss"),
        *(Arm(f"online_kd{FEATURE}", interval) for interval in ("0", "1.5")),
    ),
    Control(
        *("soft loss alone, s = 0", "spacing, without the feature loss"),
        *(Arm(f"online_kd{SOFT}", interval) for interval in ("0", "1.5")),
    ),
    Control("w/o KD, as many FLOPs", "KD at equal FLOPs", Arm("baseline", "", "epochs=x7/3"), ONLINE),
    Control("w/o KD", "half of the steps", BASELINE, Arm("baseline", "", "epochs=x2")),
    Control("self KD", "spacing, and half of the steps", SELF, SPACED_SELF),
    Control("self KD, as many steps", "spacing at equal steps", Arm("self_kd", "0", "epochs=x2"), SPACED_SELF),
    Control("self KD, as many FLOPs", "spacing at equal FLOPs", Arm("self_kd", "0", "epochs=x1.87"), SPACED_SELF),
    Control("hard losses alone, s = 0", "soft and feature losses", Arm(f"self_kd{TRAILS}", "0"), SELF),
    Control("hard losses alone, s = 4", "soft and feature losses", Arm(f"self_kd{TRAILS}", "4"), SPACED_SELF),
    Control("w/o KD", "the network of self KD, and its four hard losses", BASELINE, Arm(f"self_kd{TRAILS}", "0")),
    Control("w/o KD, AutoAugment and Cutout", "standard augmentation", Arm("baseline", "", AUTOAUGMENT), BASELINE),
    Control("four heads together, s = 0", "the deepest head alone", Arm("self_kd[reported_head=ensemble]", "0"), SELF),
    Control(
        "four heads together, s = 4", "the deepest head alone", Arm("self_kd[reported_head=ensemble]", "4"), SPACED_SELF
    ),
)


def table(rows: DataFrame) -> DataFrame:
    """A line for each control that was run together with its reference."""
    costs, rows, lines = ours(rows, present(rows), "cost"), accuracies(rows), []
    for setting in plain_settings(rows):
        found = {control: difference(rows, setting, control.arm, control.reference) for control in CONTROLS}
        found = {control: change for control, change in found.items() if change.seeds and not _shared(control, setting)}
        claims = {control: change for control, change in found.items() if control.arm in (ONLINE, SELF)}
        if claims.keys() == found.keys():  # any study has these
            continue
        compared = family({control: change for control, change in found.items() if control not in claims})
        for claim in claims.items():
            compared |= family(dict([claim]))
        for control in found:
            change, p = compared[control]
            line = {"control": control.name, "reference": control.reference.name, "takes out": control.apart}
            line |= {"control − reference": change, "p": p}
            lines.append(setting._asdict() | line | {"FLOPs": flops(costs, setting, control.arm, control.reference)})
    if not lines:
        raise UserError("controls needs runs of config/experiments/controls.yaml: add them, or leave controls out")
    return without_one_recipe(lines)


def _shared(control: Control, setting: PlainSetting) -> bool:
    """Whether neither has a teacher: those are the same runs under each protocol, and stand once."""
    without_teacher = control.arm.method == control.reference.method == BASELINE.method
    return without_teacher and "protocol" in Recipe.read(setting.recipe).settings
