import pytest

from spaced_kd.analysis.arms import Arm, arm, changed
from spaced_kd.utils.errors import UserError


def test_an_arm_is_named_as_its_rows_are():
    assert arm({"method": "baseline"}) == Arm("baseline")
    assert arm({"method": "online_kd", "interval": 1.5, "method.beta": 0, "method.alpha": 0, "clock": "teacher"}) == (
        Arm("online_kd[alpha=0.0,beta=0.0]", "1.5", "clock=teacher")
    )
    assert arm({"method": "self_kd", "method.alpha": 0.3, "epochs": "x2"}) == Arm("self_kd", "0", "epochs=x2")
    with pytest.raises(UserError, match="online_kd has no setting 'gamma'"):
        arm({"method": "online_kd", "method.gamma": 0})


@pytest.mark.parametrize(
    ("recipe", "arguments", "expected"),
    [
        ("epochs=10 lr=0.1", "epochs=x2", "epochs=20 lr=0.1"),
        ("epochs=10", "epochs=x7/3", "epochs=23"),
        ("", "epochs=x7/3", "epochs=187"),  # not 186, as x2.33 would give
        ("", "epochs=x2", "epochs=160"),
        ("epochs=40 lr=0.1", "epochs=x2", "lr=0.1"),  # 80 is the default
        ("epochs=10 precision=bf16", "initial_weights=different", "epochs=10 initial_weights=different precision=bf16"),
        ("epochs=80", "", "epochs=80"),
    ],
)
def test_an_arms_words_change_the_recipe_of_a_setting(recipe, arguments, expected):
    assert changed(recipe, arguments) == expected
