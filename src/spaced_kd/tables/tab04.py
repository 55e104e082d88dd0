"""Tab. 4: KD methods with and without spacing.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. Spaced is an interval of 4 epochs for self KD and of 1.5 for all
others. The paper's six methods are BAN, TAKD, DML, SHAKE, DLB and PSKD.
"""

from pandas import DataFrame, concat

from spaced_kd.cells import (
    ONLINE,
    SELF,
    SPACED,
    SPACED_SELF,
    WITHOUT,
    Arm,
    Change,
    label,
    layout,
    ours,
    present,
    require,
    where,
)

KD = Arm("KD")
SPACED_KD = Arm("spaced KD")


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of w/o KD, of each method and of its spaced form, and the paired difference."""
    keep = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    rows = rows[(rows["source"] == "ours") | (rows["table"] == "tab04")]
    names = rows["method"].map(lambda method: label(method)[0])
    rows = rows[names == rows["method"]].assign(kd=rows["method"])  # with the default settings
    require(ours(rows, present(rows), "accuracy"), "tab04", [ONLINE, SPACED, SELF, SPACED_SELF], keep)
    frames = []
    for name in sorted(set(rows["kd"]) - {WITHOUT.method}):
        spaced = SPACED_SELF.interval if name == SPACED_SELF.method else SPACED.interval
        arms = {WITHOUT: WITHOUT, Arm(name, "0"): KD, Arm(name, spaced): SPACED_KD}
        for arm, column in arms.items():
            found = where(rows, method=arm.method, interval=arm.interval)
            frames.append(found.assign(kd=name, method=column.method, interval=column.interval))
    columns = [WITHOUT, KD, SPACED_KD, Change(SPACED_KD, KD)]
    return layout(concat(frames), "tab04", columns, keep, keys=("dataset", "network", "kd"))
