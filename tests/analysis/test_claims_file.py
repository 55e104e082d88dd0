"""The file of claims: what is in it, and what is refused by name."""

from pathlib import Path

import pytest
import yaml

from spaced_kd.analysis import reference
from spaced_kd.analysis.claims import load as claims_file
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper():
    return reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")


GOOD = {
    "recipes": {"resnet18": {}},
    "arms": {"a": {"method": "online_kd", "interval": 0}, "b": {"method": "online_kd", "interval": 1.5}},
    "measures": {"m": {"evaluation": "accuracy", "metric": "accuracy"}},
    "claims": {
        "c": {
            **{"sentence": "S", "place": "Tab. 1", "kind": "greater", "margin": "0.5 pp"},
            **{"after": "b", "before": "a", "measure": "m", "paper": "tab01", "rows": {"cifar100": ["resnet18"]}},
        }
    },
}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("extra", 1, "the file has no key 'extra': it has arms, claims, measures, recipes"),
        ("claims.c.colour", 1, "claim c: it has no key 'colour': it has after, before"),
        ("claims.c.sentence", None, "claim c: it has no sentence: add it"),
        ("claims.c.kind", "less", "claim c: kind 'less' does not exist: there is greater, equivalent"),
        ("claims.c.margin", "0.5", "claim c: margin is '0.5', but must be a positive number with unit pp or %"),
        ("claims.c.margin", "-1 pp", "claim c: margin is '-1 pp'"),
        ("claims.c.paper", "tab99", "claim c: paper 'tab99' does not exist: there is tab01, tab02"),
        ("claims.c.after", "z", "claim c: arm 'z' does not exist: there is a, b"),
        ("claims.c.measure", "z", "claim c: measure 'z' does not exist: there is m"),
        ("claims.c.rows", {"cifar100": ["resnet19"]}, "claim c: rows: network 'resnet19' does not exist: .* resnet18"),
        (
            "claims.c.rows",
            {"cifar100": ["resnet18 from resnet18 > vgg"]},
            "claim c: rows: network 'vgg' does not exist",
        ),
        ("claims.c.rows", {"cifar10": ["resnet18"]}, "claim c: rows: tab01 has no row of cifar10 with resnet18"),
        ("arms.a.method", "online", "arm a: 'online' is none of the methods: adaptive_interval, ban, baseline"),
        ("arms.a.method", {"online_kd": {"gamma": 1}}, "arm a: online_kd has no setting 'gamma'"),
        ("arms.a.interval", -1, "arm a: interval is -1, but must not be negative"),
        ("arms.a.epochs", 20, "arm a: epochs is 20, but must be a multiple of the setting's: x2 is twice as many"),
        ("arms.a.epochs", "x0", "arm a: epochs is 'x0', but must be a multiple"),
        ("arms.a.epochs", "xx", "arm a: epochs is 'xx', but must be a multiple"),
        ("arms.a.lr", 1, "arm a has no key 'lr': it has epochs, interval, method"),
        ("measures.m.metric", "loss", "measure m: metric 'loss' does not exist: there is accuracy"),
        ("measures.m.evaluation", "speed", "measure m: evaluation 'speed' does not exist: .*bim"),
        ("measures.m.keep", {"size": 1}, "measure m: keep 'size' does not exist: there is source, study"),
        ("recipes.resnet18", {"speed": 1}, "recipe of resnet18: unknown key 'speed'"),
        ("claims.c.less", "z", "claim c: less: arm 'z' does not exist: there is a, b"),
        ("claims.c.less", ["a", "b", "a"], "claim c: less is .*, but must be one arm, or one for `after` and one for"),
        (
            "claims.c.readings",
            ["paper", "released"],
            "claim c: readings is .*, but must be two protocols, of two differ",
        ),
        ("claims.c.measure", ["m", "m", "m"], "claim c: measure is .*, but must be one, or two of one evaluation"),
        ("claims.c.varies", {"speed": 1}, "claim c: varies 'speed' does not exist: there is dataset, network"),
        ("claims.c.family", 3, "claim c: family is 3, but must be"),
        ("claims.c.margin_source", 3, "claim c: margin_source is 3, but must be"),
        ("claims.c", 3, "claim c: it is 3, but must be a mapping"),
    ],
)
def test_bad_files_are_refused_in_one_line(place, value, message, tmp_path, paper):
    content = yaml.safe_load(yaml.safe_dump(GOOD))
    *path, last = place.split(".")
    section = content
    for key in path:
        section = section[key]
    section[last] = value
    if value is None:
        del section[last]
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message) as error:
        claims_file.load(file, paper)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_good_file_and_an_absent_one(tmp_path, paper):
    file = tmp_path / "claims.yaml"
    with pytest.raises(UserError, match=r"claims\.yaml: No such file"):
        claims_file.load(file, paper)
    file.write_text("a: [")
    with pytest.raises(UserError, match="not YAML"):
        claims_file.load(file, paper)
    file.write_text(yaml.safe_dump(GOOD))
    assert [claim.id for claim in claims_file.load(file, paper).claims] == ["c"]


def test_summary_names_claims_and_a_number_that_exist(tmp_path, paper):
    file = tmp_path / "claims.yaml"
    summary = {"sentence": "S", "place": "Sec. 1", "kind": "equivalent", "margin": "1 pp", "statistic": "mean"}
    for more, message in (
        ({"of": "d", "states": {"metric": "delta_mean"}}, "claim s: of 'd' does not exist: there is c"),
        ({"of": "c", "states": {"metric": "delta"}}, "claim s: states: the paper's text has 0 numbers with"),
    ):
        content = GOOD | {"claims": GOOD["claims"] | {"s": summary | more}}
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(UserError, match=message):
            claims_file.load(file, paper)


def test_families_and_contrasts(tmp_path, paper):
    file = tmp_path / "claims.yaml"
    contrast = GOOD["claims"]["c"] | {"less": "a", "readings": ["released", "textbook"], "margin_source": "S"}
    main = GOOD["claims"]["c"] | {"main": True}
    own = GOOD["claims"]["c"] | {"family": "q"}
    file.write_text(yaml.safe_dump(GOOD | {"claims": {"c": contrast, "m": main, "o": own}}, sort_keys=False))
    first, second, third = claims_file.load(file, paper).claims
    assert first.less == (first.before, first.before)
    assert (first.readings, first.margin_source) == (("released", "textbook"), "S")
    assert [first.family, second.family, third.family] == ["Tab. 1", "main claims", "q"]
