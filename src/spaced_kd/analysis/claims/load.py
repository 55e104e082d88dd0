"""Reads the file of the paper's claims, claims.yaml, and looks up every name in it."""

import re
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pandas import DataFrame

from spaced_kd.analysis.arms import ANY, Arm, arm
from spaced_kd.analysis.claims.model import KINDS, MAIN, UNITS, Claim, Measure, Row, Sheet
from spaced_kd.analysis.collect import COSTS
from spaced_kd.analysis.queries import where
from spaced_kd.analysis.tidy_rows import COLUMNS
from spaced_kd.config import presets, registry, types
from spaced_kd.config.presets import load_recipe
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError

PATH = presets.CLAIMS


def load(path: Path, rows: DataFrame) -> Sheet:
    """The claims of a YAML file (its keys are explained there), checked against the registry and the paper's rows.

    Raises:
        UserError: names the claim, and the key, arm, measure, metric, table or row that does not exist.
    """
    content = yaml_files.read(path, "name a file of claims")
    try:
        reader = _Reader(content, where(rows, source="paper"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Sheet(reader.claims, reader.recipes)


class _Reader:
    """Reads the sections of a file of claims, and looks up every name."""

    def __init__(self, content: Any, paper: DataFrame) -> None:
        self.paper = paper
        content = _mapping("the file", content, {"recipes", "arms", "measures", "claims"}, set())
        named = content["recipes"]
        recipes = load_recipe(named) if isinstance(named, str) else _mapping("recipes", named)
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
        given = _mapping(f"arm {name}", given, {"method"}, {"interval", "epochs"})
        settings: Any = {}
        if isinstance(given["method"], dict) and len(given["method"]) == 1:
            ((given["method"], settings),) = given["method"].items()
        try:
            return arm(given | {f"method.{key}": value for key, value in _mapping("method", settings).items()})
        except UserError as error:
            raise UserError(f"arm {name}: {error}") from None

    def _measure(self, name: str, given: Any) -> Measure:
        given = _mapping(f"measure {name}", given, {"evaluation", "metric"}, {"keep", "less"})
        known = {"accuracy": ["accuracy"], "cost": list(COSTS), "theory": ["teacher_gap", "signed_sum", "trace"]}
        known |= {plugin.name: _metrics(plugin.path) for plugin in registry.plugins("evaluations").values()}
        _one_of(f"measure {name}: evaluation", given["evaluation"], known)
        _one_of(f"measure {name}: metric", given["metric"], known[given["evaluation"]])
        for part in ("keep", "less"):
            for column in _mapping(f"measure {name}: {part}", given.get(part, {})):
                _one_of(f"measure {name}: {part}", column, COLUMNS)
        return Measure(given["evaluation"], given["metric"], given.get("keep", {}), given.get("less", {}))

    def _claim(self, name: str, given: Any) -> list[Claim]:
        always = {"sentence", "place", "kind", "margin"}
        shapes = {  # characteristic key -> required and optional keys
            "needs": ({"needs"}, {"paper"}),
            "of": ({"of", "statistic", "states"}, {"dataset"}),
            "after": ({"after", "before", "measure"}, {"paper", "rows", "only_rows", "less", "readings", "varies"}),
        }
        given = _mapping("it", given)
        shape = next((key for key in shapes if key in given), "after")
        given = _mapping("it", given, always | shapes[shape][0], {"main", "family", "margin_source"} | shapes[shape][1])
        _one_of("kind", given["kind"], KINDS)
        number, unit = _margin(given["margin"])
        main = types.check_type("main", given.get("main", False), "bool")
        claim = Claim(name, given["sentence"], given["place"], given["kind"], number, unit, main=main)
        claim = replace(claim, family=_family(given, claim), margin_source=_text(given, "margin_source"))
        if given.get("paper"):
            _one_of("paper", given["paper"], sorted(set(self.paper["table"])))
            claim = replace(claim, paper=given["paper"])
        if shape == "needs":
            return [replace(claim, needs=given["needs"])]
        if shape == "of":
            return [self._summary(claim, given)]
        measures = _list(given["measure"])
        for measure in measures:
            _one_of("measure", measure, self.measures)
        claim = replace(claim, measure=self.measures[measures[0]], rows=self._rows(given.get("rows", {}), claim))
        if len(measures) > 1:
            claim = replace(claim, measure_before=self._second_measure(measures, given))
        claim = replace(claim, varies=_varies(given.get("varies", {}), claim))
        claim = replace(claim, only_rows=types.check_type("only_rows", given.get("only_rows", False), "bool"))
        pairs = [(after, before) for after in _list(given["after"]) for before in _list(given["before"])]
        for name_of_arm in dict.fromkeys(each for pair in pairs for each in pair):
            _one_of("arm", name_of_arm, self.arms)
        claim = replace(claim, less=self._less(given, claim), readings=_readings(given))
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

    def _second_measure(self, names: list[str], given: dict[str, Any]) -> Measure:
        """The measure of `before`, with the same evaluation and metric."""
        first, second = (self.measures[name] for name in names[:2])
        if len(names) > 2 or first[:2] != second[:2] or "less" in given:
            raise UserError(f"measure is {names!r}, but must be one, or two of one evaluation and metric without less")
        return second

    def _less(self, given: dict[str, Any], claim: Claim) -> tuple[Arm, Arm] | None:
        """References of a contrast's two differences: one each, or one for both."""
        if "less" not in given:
            return None
        if claim.unit != "pp":
            raise UserError(f"less is given, but margin is in {claim.unit}: a contrast of differences is in pp")
        names = _list(given["less"])
        for name in names:
            _one_of("less: arm", name, self.arms)
        if len(names) > 2:
            raise UserError(f"less is {names!r}, but must be one arm, or one for `after` and one for `before`")
        return self.arms[names[0]], self.arms[names[-1]]

    def _rows(self, given: Any, claim: Claim) -> tuple[Row, ...]:
        rows = []
        for dataset, networks in _mapping("rows", given).items():
            for network in _list(networks):
                student, _, teacher = network.partition(" from ")
                row = Row(dataset, student, teacher or student)
                for name in (student, *row.teachers):
                    _one_of("rows: network", name, self.recipes)
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


def _metrics(path: Path) -> list[str]:
    """Metrics of an evaluation, from its source."""
    return sorted(set(re.findall(r'"metric": "(\w+)"', path.read_text("utf-8"))))


def _family(given: dict[str, Any], claim: Claim) -> str:
    """The family of a claim: by default one for all main claims, and for others their place in the paper."""
    return _text(given, "family") or (MAIN if claim.main else claim.place)


def _varies(given: Any, claim: Claim) -> dict[str, tuple[Any, ...]]:
    """Keys of a recipe with their values."""
    varied = {key: tuple(_list(values)) for key, values in _mapping("varies", given).items()}
    if varied and not claim.rows:
        raise UserError("varies is given, but no rows: name the networks whose recipe varies")
    for key in varied:
        _one_of("varies", key, [each.name for each in fields(RunSpec)])
    return varied


def _text(given: dict[str, Any], key: str) -> str:
    return str(types.check_type(key, given.get(key, ""), "str"))


def _readings(given: dict[str, Any]) -> tuple[str, str] | None:
    """Protocols of the two differences of a contrast."""
    if "readings" not in given:
        return None
    names = _list(given["readings"])
    if len(names) != 2 or "less" not in given:
        raise UserError(f"readings is {names!r}, but must be two protocols, of two differences that `less` makes")
    for name in names:
        _one_of("readings: protocol", name, presets.protocol_names())
    return names[0], names[1]


def _margin(text: Any) -> tuple[float, str]:
    number, _, unit = str(text).partition(" ")
    try:
        value = float(number)
    except ValueError:
        value = -1
    if unit not in UNITS or value <= 0:
        raise UserError(f"margin is {text!r}, but must be a positive number with unit {' or '.join(UNITS)}: 0.5 pp")
    return value, unit


def _mapping(what: str, given: Any, needed: set[str] | None = None, optional: Collection[str] = ()) -> dict[str, Any]:
    """A copy of a mapping, its keys checked where they are known."""
    if not isinstance(given, dict):
        raise UserError(f"{what} is {given!r}, but must be a mapping")
    if needed is not None:
        for key in given:
            if key not in needed.union(optional):
                raise UserError(f"{what} has no key {key!r}: it has {', '.join(sorted(needed.union(optional)))}")
        if missing := needed - set(given):
            raise UserError(f"{what} has no {min(missing)}: add it")
    return dict(given)


def _one_of(what: str, name: Any, known: Iterable[str]) -> None:
    if not isinstance(name, str) or name not in (known := list(known)):
        raise UserError(f"{what} {name!r} does not exist: there is {', '.join(known)}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
