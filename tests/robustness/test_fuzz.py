"""Configurations that went wrong somewhere: each is a study, or is refused in one line that names the place."""

import copy
import math
import os
import sys
import traceback
from dataclasses import fields

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from snakemake import cli as snakemake

from spaced_kd.config import registry
from spaced_kd.config.run_spec import RunSpec, from_overrides
from spaced_kd.config.study import STUDY_KEYS, Study, expand
from spaced_kd.utils.errors import UserError

NAMES = ("studies/demo", "studies/ci", "studies/tiny_small", "studies/tiny_cpu", "experiments/released_code")
BASES = [yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in NAMES]

odd_text = st.sampled_from(
    ["", " ", "max", "all", "paper", "none", "1e-3", "1e999", "0x10", "../up", "a\nb", "{x}", "%s"]
)
odd_number = st.sampled_from([0, -1, 1, 3, 10**30, 0.5, -0.0, 1e-300, 1e300, math.inf, -math.inf, math.nan])
scalar = st.one_of(odd_text, odd_number, st.none(), st.booleans(), st.text(max_size=8), st.integers(), st.floats())
key = odd_text | st.text(max_size=8)
value = st.recursive(scalar, lambda one: st.lists(one, max_size=3) | st.dictionaries(key, one, max_size=3))
word = st.sampled_from([*registry.KINDS, "dataset", "method", "seed", "interval", "method.alpha", "epochs", "protocol"])


def places(content, path=()):
    """Every place of a configuration: keys and indices from the top."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw, bases=BASES):
    """A configuration with one place altered: (configuration, the place, what stands there now)."""
    config = copy.deepcopy(draw(st.sampled_from(bases)))
    place = draw(st.sampled_from(list(places(config))))
    holder = config
    for part in place[:-1]:
        holder = holder[part]
    kind = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "wrap"]))
    new = draw(value)
    if kind == "remove":
        del holder[place[-1]]
    elif kind == "replace":
        holder[place[-1]] = new
    elif kind == "wrap":
        old = holder[place[-1]]
        holder[place[-1]] = new = draw(st.sampled_from([[old], {"a": old}, [old, old]]))
    elif isinstance(holder, list):
        holder.append(new)
    else:
        name = draw(word | key | st.none() | st.integers())
        holder[name] = holder.pop(place[-1]) if kind == "rename" else new
        place = (*place, name)
    return config, place, new


def refusal(config) -> str | None:
    """Why the workflow's own expansion refuses a configuration; None for a study."""
    try:
        assert isinstance(expand(config), Study)
    except UserError as error:
        return str(error)
    return None


QUIETLY = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
KEYS = {*STUDY_KEYS, *(field.name for field in fields(RunSpec)), "a grid", "an arm", "arms", "recipe", "evaluate"}


def check(case):
    """A study, or one line that can be read and names a key."""
    config, place, new = case
    message = refusal(config)
    if message is None:
        return
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 1000
    named = [*place, *(new if isinstance(new, dict) else ())]
    parts = {part.removeprefix("method.") for part in named if isinstance(part, str)}  # of a method by its own name
    assert any(key and (key in message or repr(key) in message) for key in KEYS | parts), (message, place)


def test_mutated_configurations_are_studies_or_refused_in_one_line():
    settings(max_examples=100, **QUIETLY)(given(mutated())(check))()


@pytest.mark.slow
def test_a_thousand_mutated_configurations():
    settings(max_examples=1000, **QUIETLY)(given(mutated())(check))()


def dry_run(folder, config):
    """Status and words of `snakemake -n`, in a fork of this process: what it imports costs more than what it does."""
    (folder / "config" / "trial.yaml").write_text(yaml.safe_dump(config))
    child = os.fork()
    if not child:
        status = 70  # of sysexits.h: whatever is raised is our mistake
        try:
            os.chdir(folder)
            out = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            status = snakemake.main(["-n", "--configfile", "config/trial.yaml"])
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (folder / "told").read_text()


@pytest.mark.slow
def test_twenty_of_them_through_the_workflow(checkout):
    seen = []

    def check(case):
        config, _, _ = case
        status, out = dry_run(checkout, config)
        assert "Traceback" not in out, out
        result = refusal(config)
        assert status == (1 if result else 0), out
        assert "configuration of the study: " in out if result else "train" in out, out
        seen.append(result)

    check((BASES[0], (), None))  # unaltered, a study
    settings(max_examples=20, **QUIETLY | {"phases": [Phase.generate]})(given(mutated(BASES[:2]))(check))()
    assert len(seen) == 21
    assert {result is None for result in seen} == {True, False}


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1" + "0" * 400])
def test_a_number_must_be_finite(number):
    with pytest.raises(UserError, match=r"lr is .*, but must be a finite number"):
        from_overrides(["dataset=digits", "network=resnet_mini", "method=baseline", "seed=0", f"lr={number}"])
