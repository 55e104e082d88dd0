"""The paper's claims, judged by runs: each a sentence, the comparison that decides it, and a verdict.

A claim compares two arms (method and interval) by one measure, paired over seeds (`statistics.py`). Its kind says what
the paper says of the difference: `greater`, or `equivalent`, which is within a margin of 0.

- `greater` is supported if the interval of the difference lies above 0; contradicted if it lies below 0, or contains 0
  and lies below the margin: then there may be a gain, but none of the size that would count.
- `equivalent` is supported if both one-sided tests say that the difference lies within the margin, contradicted if its
  interval lies beyond.
- Otherwise the claim is inconclusive, and we say how many seeds would settle it if mean and deviation stay.
- One seed has no interval, and so no verdict. FLOPs are counted, not sampled: one run decides.

A verdict holds in its setting: dataset, network, teacher, recipe, and method settings that both arms share. The paper's
own setting is a row of its table under its own recipe; only that decides the row. Any other stands beside it.

Holm's adjustment is over a family: all comparisons of one table of the paper that are made in the paper's own settings,
for they are read together; and, of small settings, all comparisons of one table in one setting. So a study joined later
does not change the verdicts of another.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from pandas import DataFrame, Series

from spaced_kd import catalog, statistics
from spaced_kd.cells import Arm, where
from spaced_kd.errors import UserError
from spaced_kd.results import COLUMNS, COSTS, interval_name
from spaced_kd.spec import from_flat, read_value

PATH = Path("config/claims.yaml")
KINDS = ("greater", "equivalent")
UNITS = ("pp", "%")  # a difference in percentage points; a ratio, by its change in percent
POSITIVE = "positive"  # every value above 0, where a measure keeps rows
DETAILS = ("sigma", "draw", "corruption", "severity", "epsilon", "steps", "probes")  # what seeds must have in common
SILENT = ("eval_every", "threads")  # words of a recipe that leave it the paper's
ANY = {"dataset": "digits", "network": "resnet_mini", "seed": 0}  # an arm's words are checked as those of a run are
COUNTED = ("training_flops", "training_flops_with_teacher")

Correct = Callable[[str], np.ndarray | None]  # id of a run -> whether it is right on each test image, (N,)


class Row(NamedTuple):
    """A row of one of the paper's tables."""

    dataset: str
    network: str
    teacher: str


class Setting(NamedTuple):
    """Where a comparison is made; `shared` are settings of the method that both arms have beside the claim's."""

    dataset: str
    network: str
    teacher: str
    recipe: str = ""
    shared: str = ""

    @property
    def name(self) -> str:
        """Display name, e.g. "digits, resnet_mini, epochs=12 lr=0.02"."""
        teacher = f"teacher {self.teacher}" if self.teacher != self.network else ""
        recipe = " ".join(f"{key}={value}" for key, value in _words(self.recipe).items())
        return ", ".join(filter(None, [self.dataset, self.network, teacher, recipe, self.shared]))


@dataclass(frozen=True)
class Measure:
    """One number of each run: the mean of the rows kept, less the mean of those in `less`."""

    evaluation: str
    metric: str
    keep: dict[str, Any]  # column -> values, or `positive`
    less: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what decides it."""

    id: str
    sentence: str
    place: str  # in the paper: its table, figure or section
    kind: str
    margin: float
    unit: str
    after: Arm | None = None
    before: Arm | None = None
    measure: Measure | None = None
    rows: tuple[Row, ...] = ()
    paper: str = ""  # the table whose cells have the paper's difference
    needs: str = ""  # what must be built before the claim can be judged
    of: tuple["Claim", ...] = ()  # claims whose rows are summed up
    statistic: str = ""  # mean, min or max over them
    stated: float | None = None  # the number that the paper states for it

    @property
    def scaled_margin(self) -> float:
        """The margin on the scale of the differences: of a ratio, ln(1 + margin / 100)."""
        return math.log1p(self.margin / 100) if self.unit == "%" else self.margin


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a claim in a setting, or that there are none. Differences are in the claim's unit."""

    claim: Claim
    verdict: str  # supported, contradicted, inconclusive, no verdict, not run
    reason: str = ""
    setting: Setting | None = None
    own: bool = False  # the paper's own setting
    seeds: int = 0
    expected: int = 0  # seeds that both arms should have
    mean: float | None = None
    sd: float | None = None  # of differences, None for ratios
    interval: statistics.Interval | None = None
    p: float | None = None  # adjusted
    detectable: float | None = None
    needed: int | None = None  # seeds that would settle it; None also where no practical number would
    images: statistics.Interval | None = None  # bootstrap over test images, seeds fixed: a remark
    mcnemar: float | None = None  # p between the two networks of a single seed: a remark
    paper: float | None = None


class _Comparison(NamedTuple):
    claim: Claim
    setting: Setting
    d: Series  # by seed, on the scale of the test
    expected: int
    runs: tuple[list[str], list[str]]


class Sheet(NamedTuple):
    """A file of claims."""

    claims: list[Claim]
    recipes: dict[str, dict[str, Any]]  # the paper's, by network: what differs from the defaults


def load(path: Path, rows: DataFrame) -> Sheet:
    """The claims of a YAML file (its keys are explained there), checked against the catalog and the paper's rows.

    Raises:
        UserError: names the claim, and the key, arm, measure, metric, table or row that does not exist.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a file of claims") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        reader = _Reader(content, where(rows, source="paper"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Sheet(reader.claims, reader.recipes)


class _Reader:
    """Reads the sections of a file of claims; every name is looked up where it is used."""

    def __init__(self, content: Any, paper: DataFrame) -> None:
        self.paper = paper
        content = _mapping("the file", content, {"recipes", "arms", "measures", "claims"}, set())
        recipes = _mapping("recipes", content["recipes"])
        self.recipes = {network: self._recipe(network, given) for network, given in recipes.items()}
        self.arms = {name: self._arm(name, given) for name, given in _mapping("arms", content["arms"]).items()}
        measures = _mapping("measures", content["measures"])
        self.measures = {name: self._measure(name, given) for name, given in measures.items()}
        self.claims: list[Claim] = []
        for name, given in _mapping("claims", content["claims"]).items():
            try:
                self.claims += self._claim(name, given)
            except UserError as error:
                raise UserError(f"claim {name}: {error}") from None

    def _recipe(self, network: str, given: Any) -> dict[str, Any]:
        try:
            changed = from_flat(ANY | {"method": "baseline"} | _mapping("it", given)).changed()
        except UserError as error:
            raise UserError(f"recipe of {network}: {error}") from None
        return {key: value for key, value in changed.items() if key not in ANY and key != "method"}

    def _arm(self, name: str, given: Any) -> Arm:
        given = _mapping(f"arm {name}", given, {"method"}, {"interval"})
        method = given.pop("method")
        settings = {}
        if isinstance(method, dict) and len(method) == 1:
            ((method, settings),) = method.items()
        try:
            settings = {f"method.{key}": value for key, value in _mapping("method", settings).items()}
            spec = from_flat(ANY | {"method": method} | given | settings)
        except UserError as error:
            raise UserError(f"arm {name}: {error}") from None
        return Arm(spec.label("method"), "" if method == "baseline" else interval_name(spec.interval))

    def _measure(self, name: str, given: Any) -> Measure:
        given = _mapping(f"measure {name}", given, {"evaluation", "metric"}, {"keep", "less"})
        known = {"accuracy": ["accuracy"], "cost": list(COSTS)}
        known |= {plugin.name: _metrics(plugin.path) for plugin in catalog.plugins("evaluations").values()}
        _one_of(f"measure {name}: evaluation", given["evaluation"], known)
        _one_of(f"measure {name}: metric", given["metric"], known[given["evaluation"]])
        for part in ("keep", "less"):
            for column in _mapping(f"measure {name}: {part}", given.get(part, {})):
                _one_of(f"measure {name}: {part}", column, COLUMNS)
        return Measure(given["evaluation"], given["metric"], given.get("keep", {}), given.get("less", {}))

    def _claim(self, name: str, given: Any) -> list[Claim]:
        always = {"sentence", "place", "kind", "margin"}
        shapes = {  # by the key that tells which shape it is
            "needs": ({"needs"}, {"paper"}),
            "of": ({"of", "statistic", "states"}, {"dataset"}),
            "after": ({"after", "before", "measure"}, {"paper", "rows"}),
        }
        given = _mapping("it", given)
        shape = next((key for key in shapes if key in given), "after")
        given = _mapping("it", given, always | shapes[shape][0], shapes[shape][1])
        _one_of("kind", given["kind"], KINDS)
        number, unit = _margin(given["margin"])
        claim = Claim(name, given["sentence"], given["place"], given["kind"], number, unit)
        if given.get("paper"):
            _one_of("paper", given["paper"], sorted(set(self.paper["table"])))
            claim = replace(claim, paper=given["paper"])
        if shape == "needs":
            return [replace(claim, needs=given["needs"])]
        if shape == "of":
            return [self._summary(claim, given)]
        _one_of("measure", given["measure"], self.measures)
        claim = replace(claim, measure=self.measures[given["measure"]], rows=self._rows(given.get("rows", {}), claim))
        pairs = [(after, before) for after in _list(given["after"]) for before in _list(given["before"])]
        for pair in pairs:
            for arm in pair:
                _one_of("arm", arm, self.arms)
        return [
            replace(
                claim,
                id=name if len(pairs) == 1 else f"{name}.{after}.{before}",
                sentence=claim.sentence.format(after=self.arms[after].name, before=self.arms[before].name),
                after=self.arms[after],
                before=self.arms[before],
            )
            for after, before in pairs
        ]

    def _rows(self, given: Any, claim: Claim) -> tuple[Row, ...]:
        rows = []
        for dataset, networks in _mapping("rows", given).items():
            for network in _list(networks):
                student, _, teacher = network.partition(" from ")
                row = Row(dataset, student, teacher or student)
                _one_of("rows: network", student, self.recipes)
                if claim.paper and where(self.paper, table=claim.paper, **row._asdict()).empty:
                    raise UserError(f"rows: {claim.paper} has no row of {dataset} with {network}")
                rows.append(row)
        return tuple(rows)

    def _summary(self, claim: Claim, given: dict[str, Any]) -> Claim:
        _one_of("statistic", given["statistic"], ("mean", "min", "max"))
        earlier = {claim.id: claim for claim in self.claims}
        for name in _list(given["of"]):
            _one_of("of", name, earlier)
        parts = [earlier[name] for name in _list(given["of"])]
        if dataset := given.get("dataset"):
            rows = [tuple(row for row in part.rows if row.dataset == dataset) for part in parts]
            parts = [replace(part, rows=kept) for part, kept in zip(parts, rows, strict=True)]
        states = _mapping("states", given["states"], {"metric"}, {"dataset", "network", "method"})
        stated = where(self.paper, table="text", **({"dataset": "", "network": "", "method": ""} | states))
        if len(stated) != 1:
            raise UserError(f"states: the paper's text has {len(stated)} numbers with {states}, one is meant")
        number = stated["value"].item()
        sentence = claim.sentence.format(stated=f"{number:.2f}")
        return replace(claim, sentence=sentence, of=tuple(parts), statistic=given["statistic"], stated=number)


def judge(
    sheet: Sheet,
    rows: DataFrame,
    *,
    correct: Correct | None = None,
    alpha: float = statistics.ALPHA,
) -> list[Verdict]:
    """Verdicts in order of the claims: the paper's rows, one each, then small settings.

    Args:
        sheet: of `load`.
        rows: tidy rows, ours of one or several studies and the paper's.
        correct: gives what the remarks need: bootstrap over test images, and McNemar's test of a single seed.
        alpha: error of a family.

    Raises:
        UserError: seeds of two arms that are not paired, or two values for one seed.
    """
    claims, recipes = sheet
    # a run that two studies share has the same rows in both
    mine = where(rows, source="ours").drop(columns="study").drop_duplicates()
    compared = {claim.id: list(_comparisons(claim, mine)) for claim in claims if claim.measure}
    families = defaultdict(list)
    for comparison in (each for found in compared.values() for each in found):
        if _testable(comparison) is None:
            own = _own(comparison, recipes)
            families[comparison.claim.place, None if own else comparison.setting].append(comparison)
    levels = {}
    for members in families.values():
        family = statistics.holm([_p(each) for each in members], alpha)
        for each, p, level in zip(members, family.p, family.levels, strict=True):
            levels[each.claim.id, each.setting] = float(p), float(level)
    verdicts = []
    for claim in claims:
        found = compared.get(claim.id, [])
        if claim.of:
            verdicts.append(_summed(claim, compared, rows, recipes))
            continue
        decided = [_verdict(each, levels, rows, recipes, correct) for each in found]
        there = {Row(*verdict.setting[:3]) for verdict in decided if verdict.own}
        verdicts += [verdict for verdict in decided if verdict.own]
        verdicts += [_not_run(claim, row, rows) for row in claim.rows if row not in there]
        verdicts += [verdict for verdict in decided if not verdict.own]
        if not claim.rows and not decided:
            verdicts.append(_not_run(claim, None, rows))
    return verdicts


def _comparisons(claim: Claim, rows: DataFrame) -> Iterable[_Comparison]:
    """The claim's comparison in every setting where both arms have been run."""
    metrics = (claim.measure.metric, "missing")  # a missing run still tells that there should be one
    rows = where(rows, evaluation=claim.measure.evaluation, metric=metrics)
    # other teachers are the subject of their own claims
    across = any(row.teacher != row.network for row in claim.rows)
    rows = rows[(rows["teacher"] != rows["network"]) == across]
    asked = []
    for arm in (claim.after, claim.before):
        mine = rows[rows["interval"] == arm.interval]
        mine = mine.assign(shared=[_shared(method, arm.method) for method in mine["method"]])
        mine = mine[mine["shared"].notna()]
        groups = mine.groupby(["dataset", "network", "teacher", "recipe", "shared"], sort=False)
        asked.append({Setting(*key): group for key, group in groups})
    for setting in asked[0]:
        if setting in asked[1]:
            yield _compare(claim, setting, asked[0][setting], asked[1][setting])


def _compare(claim: Claim, setting: Setting, after: DataFrame, before: DataFrame) -> _Comparison:
    names = claim.after.name, claim.before.name
    expected = set(after["seed"]), set(before["seed"])
    # one arm may have been repeated more often, but seeds that neither shares with the other belong to no comparison
    if not (expected[0] <= expected[1] or expected[1] <= expected[0]):
        index = [Series(0.0, index=sorted(seeds)) for seeds in expected]
        try:
            statistics.differences(*index, names)
        except UserError as error:
            raise UserError(f"{claim.id} in {setting.name}: {error}") from None
    values, details, runs = zip(*(_values(claim.measure, group, setting) for group in (after, before)), strict=True)
    common = sorted(set(values[0].index) & set(values[1].index))
    if len({frozenset(parts[seed]) for parts in details for seed in common}) > 1:
        raise UserError(f"{claim.id} in {setting.name}: {' and '.join(names)} are measured under different settings")
    first, second = (each.loc[common] for each in values)
    if claim.unit == "%":
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = np.log(first), np.log(second)
    d = statistics.differences(first, second, names)
    return _Comparison(
        claim, setting, d, len(expected[0] & expected[1]), tuple([each[s] for s in common] for each in runs)
    )


def _values(measure: Measure, rows: DataFrame, setting: Setting) -> tuple[Series, dict, dict]:
    """Value, settings of the measurement, and run of each seed."""
    rows = where(rows, metric=measure.metric).fillna(dict.fromkeys(DETAILS, -1))
    kept = _kept(rows, measure.keep)
    if (twice := kept.duplicated(["seed", *DETAILS], keep=False)).any():
        runs = ", ".join(dict.fromkeys(kept.loc[twice, "run"]))
        raise UserError(f"{setting.name}: several values for one seed, from {runs}: leave all but one out")
    values = kept.groupby("seed")["value"].mean()
    if measure.less:
        values = (values - _kept(rows, measure.less).groupby("seed")["value"].mean()).dropna()
    seeds = kept.groupby("seed")
    details = {seed: set(group[list(DETAILS)].itertuples(index=False, name=None)) for seed, group in seeds}
    return values, details, seeds["run"].first().to_dict()


def _kept(rows: DataFrame, keep: dict[str, Any]) -> DataFrame:
    for column, values in keep.items():
        rows = rows[rows[column] > 0] if values == POSITIVE else where(rows, **{column: tuple(_list(values))})
    return rows


def _testable(comparison: _Comparison) -> str | None:
    """Why a comparison has no test; None where it has one."""
    d, claim = comparison.d, comparison.claim
    if len(d) == 0:
        return "no finished pair of runs"
    if not np.isfinite(d).all():
        return "a value is not finite, or not above 0 where a ratio is asked for"
    if claim.measure.metric in COUNTED:
        return "counted, not sampled"
    if len(d) == 1:
        return "one seed has no interval"
    if d.std(ddof=1) == 0:
        return "all seeds have the same difference, which tells nothing of their spread"
    return None


def _p(comparison: _Comparison) -> float:
    claim, d = comparison.claim, comparison.d.to_numpy()
    if claim.kind == "greater":
        return float(statistics.paired_test(d))
    return float(statistics.equivalence_test(d, claim.scaled_margin))


def _verdict(
    comparison: _Comparison, levels: dict, rows: DataFrame, recipes: dict[str, dict], correct: Correct | None
) -> Verdict:
    claim, setting, d, expected, runs = comparison
    own = _own(comparison, recipes)
    result = Verdict(claim, "no verdict", setting=setting, own=own, seeds=len(d), expected=expected)
    result = replace(result, paper=_paper(claim, Row(*setting[:3]), rows) if own else None)
    why = _testable(comparison)
    if len(d) and np.isfinite(d).all():
        result = replace(result, mean=_shown(d.mean(), claim.unit))
    if why == "counted, not sampled":
        point = statistics.Interval(d.min(), d.max())
        return replace(result, verdict=_decide(claim, point) or "inconclusive", reason=why)
    if len(d) == 0:
        return replace(result, verdict="not run", reason=f"{why}: {_needed(claim, setting)}")
    if correct and claim.unit == "pp" and claim.measure.keep.get("selection") == "last":
        result = replace(result, **_remarks(runs, correct))
    if why:
        return replace(result, reason=why)
    p, level = levels[claim.id, setting]
    n, mean, s = len(d), float(d.mean()), float(d.std(ddof=1))
    interval = statistics.paired_interval(d.to_numpy(), level if claim.kind == "greater" else 2 * level)
    verdict = _decide(claim, interval) or "inconclusive"
    return replace(
        result,
        verdict=verdict,
        sd=s if claim.unit == "pp" else None,
        interval=statistics.Interval(*(_shown(float(limit), claim.unit) for limit in interval)),
        p=p,
        detectable=_shown(statistics.detectable(s, n, level), claim.unit),
        needed=_settle(claim, mean, s, level) if verdict == "inconclusive" else None,
    )


def _decide(claim: Claim, interval: statistics.Interval) -> str | None:
    """Supported or contradicted, as the interval tells; None if it tells neither."""
    low, high, margin = *interval, claim.scaled_margin
    if claim.kind == "greater":
        return "supported" if low > 0 else "contradicted" if high < margin else None
    if low > margin or high < -margin:
        return "contradicted"
    return "supported" if -margin <= low and high <= margin else None


def _settle(claim: Claim, mean: float, s: float, level: float) -> int | None:
    """Seeds that would decide the claim, either way, with a power of 80 % if mean and deviation stay as they are."""
    margin = claim.scaled_margin
    if claim.kind == "greater":
        ways = [statistics.needed(abs(mean), s, level), statistics.needed(margin - mean, s, level)]
    else:
        ways = [
            statistics.needed_equivalent(mean, s, margin, level),
            statistics.needed(abs(mean) - margin, s, level, sides=1),
        ]
    return min((n for n in ways if n), default=None)


def _remarks(runs: tuple[list[str], list[str]], correct: Correct) -> dict[str, Any]:
    arms = [[correct(run) for run in each] for each in runs]
    if any(array is None for arm in arms for array in arm):
        return {}
    after, before = (np.stack(arm) for arm in arms)
    remarks: dict[str, Any] = {"images": statistics.bootstrap_images(after, before)}
    if len(after) == 1:
        remarks["mcnemar"] = statistics.mcnemar(after[0], before[0])
    return remarks


def _summed(claim: Claim, compared: dict[str, list[_Comparison]], rows: DataFrame, recipes: dict) -> Verdict:
    """A statistic over the rows of other claims; it needs every row in the paper's own setting."""
    result = Verdict(claim, "not run", paper=claim.stated)
    found, asked = [], [(part, row) for part in claim.of for row in part.rows]
    for part, row in asked:
        own = [each for each in compared[part.id] if Row(*each.setting[:3]) == row and _own(each, recipes)]
        found += [each.d for each in own if len(each.d)]
    if len(found) < len(asked):
        tables = " and ".join(dict.fromkeys(part.place for part in claim.of))
        return replace(result, reason=f"{len(found)} of the {len(asked)} rows of {tables} are there")
    together = DataFrame(dict(enumerate(found))).dropna()
    mean = float(getattr(together.mean(), claim.statistic)())
    result = replace(result, own=True, mean=mean, seeds=len(together), expected=max(map(len, found)))
    if claim.statistic != "mean":
        return replace(
            result, verdict="no verdict", reason="an extreme is chosen by the data, and has no interval here"
        )
    if len(together) < 2:
        return replace(result, verdict="no verdict", reason="one seed has no interval")
    # the mean over rows is one number per seed; its family is itself
    interval = statistics.paired_interval(together.mean(axis=1).to_numpy(), 2 * statistics.ALPHA)
    off = statistics.Interval(interval.low - claim.stated, interval.high - claim.stated)
    return replace(result, verdict=_decide(claim, off) or "inconclusive", interval=interval)


def _not_run(claim: Claim, row: Row | None, rows: DataFrame) -> Verdict:
    reason = claim.needs or _needed(claim, row)
    setting = Setting(*row) if row else None
    return Verdict(claim, "not run", reason, setting, own=bool(row), paper=_paper(claim, row, rows) if row else None)


def _needed(claim: Claim, place: Row | Setting | None) -> str:
    """Which runs would be needed, in words."""
    arms = " and ".join(f"{arm.method} {arm.interval}".strip() for arm in (claim.after, claim.before))
    measure = claim.measure.evaluation
    extra = f", evaluated by {measure}" if measure not in ("accuracy", "cost") else ""
    on = f" on {place.dataset} with {place.network}" if place else ""
    teacher = f" from {place.teacher}" if place and place.teacher != place.network else ""
    return f"run {arms}{on}{teacher}{extra}"


def paper_range(claim: Claim, rows: DataFrame) -> list[float]:
    """The paper's own numbers for a claim, of all its rows; empty where they are not to be had."""
    if claim.stated is not None:
        return [claim.stated]
    if claim.needs:
        return []
    values = [_paper(claim, row, rows) for row in claim.rows]
    return [value for value in values if value is not None]


def paper_statistic(claim: Claim, rows: DataFrame) -> float:
    """What a claim over rows comes to when it is computed from the cells of the paper's own tables."""
    return float(getattr(Series([value for part in claim.of for value in paper_range(part, rows)]), claim.statistic)())


def _paper(claim: Claim, row: Row, rows: DataFrame) -> float | None:
    """The paper's difference, from the cells of its table: a mean over corruptions and severities where it has some."""
    if not claim.paper:
        return None
    rows = where(rows, source="paper", table=claim.paper, metric=claim.measure.metric, **row._asdict())
    rows = _kept(rows, {key: value for key, value in claim.measure.keep.items() if key in ("corruption", "severity")})
    after, before = (
        where(rows, method=arm.method, interval=arm.interval)["value"].mean() for arm in (claim.after, claim.before)
    )
    return None if np.isnan(after - before) else round(float(after - before), 10)


def _own(comparison: _Comparison, recipes: dict[str, dict[str, Any]]) -> bool:
    """Whether a comparison is made in the paper's own setting."""
    setting = comparison.setting
    if setting.shared or Row(*setting[:3]) not in comparison.claim.rows:
        return False
    return {key: read_value(text) for key, text in _words(setting.recipe).items()} == recipes[setting.network]


def _words(recipe: str) -> dict[str, str]:
    """Words of a recipe without those that leave it the paper's."""
    words = dict(word.partition("=")[::2] for word in recipe.split())
    return {key: value for key, value in words.items() if key not in SILENT}


def _shared(method: str, wanted: str) -> str | None:
    """Settings in a method's label beside those in the wanted one; None where it is another method, or lacks one."""
    (name, own), (other, needed) = map(_label, (method, wanted))
    return ",".join(word for word in own if word not in needed) if name == other and set(needed) <= set(own) else None


def _label(method: str) -> tuple[str, list[str]]:
    name, _, settings = method.removesuffix("]").partition("[")
    return name, re.split(r",(?=[a-z_]+=)", settings) if settings else []


def _shown(difference: float, unit: str) -> float:
    """A difference in the claim's unit: ln(after / before) becomes a change in percent."""
    return 100 * math.expm1(difference) if unit == "%" and abs(difference) < 100 else float(difference)


def _metrics(path: Path) -> list[str]:
    """Metrics that an evaluation yields, from its source."""
    return sorted(set(re.findall(r'"metric": "(\w+)"', path.read_text())))


def _margin(text: Any) -> tuple[float, str]:
    number, _, unit = str(text).partition(" ")
    try:
        value = float(number)
    except ValueError:
        value = -1
    if unit not in UNITS or value <= 0:
        raise UserError(f"margin is {text!r}, but must be a positive number with unit {' or '.join(UNITS)}: 0.5 pp")
    return value, unit


def _mapping(what: str, given: Any, needed: set[str] | None = None, optional: set[str] | None = None) -> dict[str, Any]:
    """A copy of a mapping, its keys checked where they are known."""
    if not isinstance(given, dict):
        raise UserError(f"{what} is {given!r}, but must be a mapping")
    if needed is not None:
        for key in given:
            if key not in needed | optional:
                raise UserError(f"{what} has no key {key!r}: it has {', '.join(sorted(needed | optional))}")
        if missing := needed - set(given):
            raise UserError(f"{what} has no {min(missing)}: add it")
    return dict(given)


def _one_of(what: str, name: Any, known: Iterable[str]) -> None:
    if not isinstance(name, str) or name not in (known := list(known)):
        raise UserError(f"{what} {name!r} does not exist: there is {', '.join(known)}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
