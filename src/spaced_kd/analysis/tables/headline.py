"""Headline: six of the paper's claims, each in our setting with the best evidence.

Differences are in percentage points of top-1 test accuracy, taken seed by seed: mean ± standard deviation over seeds
(number of seeds). The best evidence is the setting with the most training steps of the student, then the most seeds,
then the first reading among paper, released, textbook and released_loop_only; the table `overview` has all settings.
The paper's numbers are the range over its rows, which have no deviations. The verdict is read from the adjusted
interval, as the table `scorecard` explains.
"""

from collections import Counter
from collections.abc import Sequence

from pandas import DataFrame

from spaced_kd.analysis import human_names
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import lines, word
from spaced_kd.analysis.claims.verdicts import Verdict, judge
from spaced_kd.utils.errors import UserError

CLAIMS = (
    *("spaced_beats_online", "spaced_beats_without", "online_beats_without"),
    *("kd_at_equal_flops.spaced.without_as_many_flops", "spaced_self_beats_self", "spaced_self_at_equal_steps"),
)
PAPER_STEPS = 31_280  # CIFAR-100: 80 epochs of 391 batches
READINGS = ("paper", "released", "textbook", "released_loop_only")


def table(rows: DataFrame) -> DataFrame:
    """A line for each of these claims that a setting has at least two seeds for."""
    found = best_of(judge(load(PATH, rows), rows))
    if not found:
        raise UserError("headline needs two seeds of online_kd with interval 0 and 1.5: add them")
    return table_of(found, rows)


def table_of(found: Sequence[Verdict], rows: DataFrame) -> DataFrame:
    """A line for each of these verdicts, which were judged by the rows."""
    shown = lines(found, rows).assign(
        claim=[verdict.claim.sentence for verdict in found],
        setting=[_setting(verdict) for verdict in found],
    )
    return shown[["claim", "paper", "ours", "adjusted 95 %", "verdict", "setting", "endpoint"]]


def best_of(judged: Sequence[Verdict]) -> list[Verdict]:
    """Of verdicts, for each of these claims the one with the best evidence that has at least two seeds."""
    of_claims = ([verdict for verdict in judged if verdict.claim.id == name and verdict.seeds > 1] for name in CLAIMS)
    return [max(of_claim, key=evidence) for of_claim in of_claims if of_claim]


def findings(found: Sequence[Verdict]) -> str:
    """Two sentences: the number of each verdict, and the steps of our trainings compared with the paper's."""
    counts = Counter(word(verdict) for verdict in found)
    tally = ", ".join(f"{number} {name}" for name, number in counts.items())
    steps = sorted({verdict.steps[0] for verdict in found if verdict.steps})
    span = " to ".join(f"{number:,}" for number in dict.fromkeys((steps[0], steps[-1])))
    return (
        f"Of {len(found)} claims: {tally}. Our trainings have {span} steps, the paper's {PAPER_STEPS:,} or more,"
        " so none of these verdicts decides a row of the paper."
    )


def _setting(verdict: Verdict) -> str:
    return f"{human_names.scale_name(verdict.setting)}; {human_names.reading_name(verdict.setting.reading)}"


def evidence(verdict: Verdict) -> tuple[int, int, int]:
    """Sort key by which a setting is chosen: training steps of the student, seeds, order of the readings."""
    reading = verdict.setting.reading
    order = READINGS.index(reading) if reading in READINGS else len(READINGS)
    return max(verdict.steps[:1], default=0), verdict.seeds, -order
