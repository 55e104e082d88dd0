"""Tab. 4: KD methods with and without spacing.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. KD is the method without spacing. Where a method finishes its
networks one after another, as published (BAN, TAKD), that is offline KD, and KD trains all of them together without
delay. Spaced is an interval of 4 epochs for self KD and of 1.5 for all others. w/o KD of DLB and PS-KD is the network
that they train, trained alone. Brackets name another reading of a method, or of its spacing. The paper's six methods
are BAN, TAKD, DML, SHAKE, DLB and PSKD.
"""

from pandas import DataFrame, concat

from spaced_kd.analysis.arms import BASELINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm, Contrast
from spaced_kd.analysis.layout import layout
from spaced_kd.analysis.queries import ours, present, require, where
from spaced_kd.config.labels import Label

KD = Arm("KD")
OFFLINE_KD = Arm("offline KD")
SPACED_KD = Arm("spaced KD")
FROM = " from "
ELSEWHERE = "adaptive_interval"  # has no interval to be with or without; the table `adaptive` has it
ALONE = {"dlb", "ps_kd"}  # whose w/o KD is the network that they train, with no student
OF_SPACING = {"spaced_links"}  # settings that change nothing where nothing is late


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of w/o KD, of each method and of its spaced form, and the paired differences."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    rows = _named(rows[(rows["source"] == "ours") | (rows["table"] == "tab04")])
    require(ours(rows, present(rows), "accuracy"), "tab04", [ONLINE, SPACED, SELF, SPACED_SELF], filters)
    frames = []
    for name in sorted(name for name in set(rows["kd"]) - {BASELINE.method} if "student" not in _settings(name)):
        spaced = SPACED_SELF.interval if name == SPACED_SELF.method else SPACED.interval
        settings = rows.loc[rows["kd"] == name, ["dataset", "network", "recipe"]].drop_duplicates()
        intervals = {"0": KD, "max": OFFLINE_KD, spaced: SPACED_KD}
        arms = {Arm(_alone(name), "0") if Label.read(name).name in ALONE else BASELINE: BASELINE}
        arms |= {Arm(name, interval): column for interval, column in intervals.items()}
        for arm, column in arms.items():
            found = where(rows, kd=arm.method, interval=arm.interval)
            if found.empty and column == KD and set(_settings(name)) <= OF_SPACING:
                found = where(rows, kd=_plain(name), interval=arm.interval)
            found = found.merge(settings)
            frames.append(found.assign(kd=name, method=column.method, interval=column.interval))
    columns = [BASELINE, KD, OFFLINE_KD, SPACED_KD, Contrast(SPACED_KD, KD), Contrast(SPACED_KD, OFFLINE_KD)]
    return layout(concat(frames), "tab04", columns, filters, keys=("dataset", "network", "kd"))


def _named(rows: DataFrame) -> DataFrame:
    """Rows with the column `kd`, the method as its lines call it: "takd[spaced_links=last] from resnet101 > resnet50".

    Settings and other teachers of online KD and self KD are the subject of other tables.
    """
    names = rows["method"].map(lambda method: Label.read(method).name)
    others = (rows["teacher"] != rows["network"]) & (rows["source"] == "ours")
    rows = rows.assign(kd=rows["method"].where(~others, rows["method"] + FROM + rows["teacher"]))
    rows = rows[((rows["kd"] == names) | ~names.isin([ONLINE.method, SELF.method])) & (names != ELSEWHERE)]
    return rows.assign(teacher=rows["network"])


def _plain(name: str) -> str:
    """A method as its lines call it, without its settings."""
    method, teachers = name.partition(FROM)[::2]
    return Label.read(method).name + (FROM + teachers if teachers else "")


def _settings(name: str) -> dict[str, str]:
    return Label.read(name.partition(FROM)[0]).settings


def _alone(name: str) -> str:
    """The network that a method trains, with no student: "dlb[alpha=2.0]" is "dlb[alpha=2.0,student=alone]"."""
    method = Label.read(name)
    own = {key: value for key, value in method.settings.items() if not key.startswith("student_")}
    return str(Label(method.name, own | {"student": "alone"}))
