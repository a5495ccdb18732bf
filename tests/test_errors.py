from __future__ import annotations

import pytest

from vizcnn import errors


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    assert errors.did_you_mean("layer4.1.conv", ["layer4.1.conv2", "fc"]) == " Did you mean 'layer4.1.conv2'?"
    assert errors.did_you_mean("TABY", ["tabby", "Tiger"]) == " Did you mean 'tabby'?"
    assert errors.did_you_mean("qqqq", ["tabby"]) == ""


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ParameterError, ValueError),
        (errors.TargetError, ValueError),
        (errors.LayerNotFound, LookupError),
        (errors.NonFiniteResult, RuntimeError),
        (errors.WeightsError, OSError),
        (errors.Interrupted, KeyboardInterrupt),
    ],
)
def test_errors_can_be_caught_as_the_builtin_that_people_expect(error: type, builtin: type) -> None:
    assert issubclass(error, builtin)


def test_context_is_put_in_front_of_the_message() -> None:
    error = errors.WeightsError("file is broken")
    error.add_context("Occlusion on x")
    assert str(error) == "Occlusion on x: file is broken"


def test_a_message_is_one_legible_line_whatever_it_quotes() -> None:
    error = errors.ParameterError("got\n  array([[1.],\n\t [2.]])\r\nof a\x1b[31m\0b\ud800 猫")
    assert str(error) == "got array([[1.], [2.]]) of a\\x1b[31m\\x00b\\ud800 猫"
    error.add_context("in\nhere")
    assert str(error).startswith("in here: got array")
    assert errors.escape_invisible("two\nlines\tand \x9b") == "two\nlines\tand \\x9b"
    assert errors.escape_invisible("a\u202eb\u2067c") == "a\\u202eb\\u2067c"  # they turn what stands behind them


def test_the_fact_of_a_message_is_its_first_sentence_without_context() -> None:
    error = errors.DegenerateResult("the map of St. Bernard for a.jpg is zero. Try another method. Or none")
    error.add_context("Cam on x")
    error.add_context("more")
    assert str(error).startswith("more: Cam on x: the map")
    assert error.fact == "the map of St. Bernard for a.jpg is zero"
    assert errors.WeightsError("file is broken").fact == "file is broken"
