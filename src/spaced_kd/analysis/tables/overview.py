"""Overview: the paper's main claims beside ours, each with its setting.

Differences are in percentage points of top-1 test accuracy at the endpoint named, but for the Hessian trace, whose
change is in percent. Ours are taken seed by seed: mean ± standard deviation over seeds (number of seeds). The verdict
is read from the adjusted interval: 95 % for its family together, whose name and number of members m stand beside it,
after Holm. The raw interval is of 95 % for that comparison alone. Words are those of the table `scorecard`. Steps are
those of the student. The paper's numbers are the range over its rows, which have no deviations. Results in other
settings than the paper's are not evidence for or against its rows.
"""

from pandas import DataFrame

from spaced_kd.analysis import human_names
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import lines, short_names
from spaced_kd.analysis.claims.verdicts import judge
from spaced_kd.utils.errors import UserError


def table(rows: DataFrame) -> DataFrame:
    """A line for each main claim and each of our settings that has at least two seeds for it."""
    found = [verdict for verdict in judge(load(PATH, rows), rows) if verdict.claim.main and verdict.seeds > 1]
    if not found:
        raise UserError("overview needs two seeds of online_kd with interval 0 and 1.5: add them")
    settings = [verdict.setting for verdict in found]
    labels, names = short_names(settings), human_names.setting_names(settings)
    table = lines(found, rows)[["claim", "paper", "ours", "adjusted 95 %", "raw 95 %", "verdict", "endpoint"]]
    table = table.assign(**{"our setting": [labels[setting] for setting in settings]})
    table.attrs["names"] = {"our setting": {labels[setting]: names[setting] for setting in settings}}
    return table
