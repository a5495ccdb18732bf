from __future__ import annotations

from typing import Any, Literal

import pytest

from vizcnn import Probe, Result, param
from vizcnn.errors import ParameterError
from vizcnn.probe import options


class Sample(Probe[Result]):
    """A probe with every kind of option."""

    count: int = param(3, "How many.", min=1, max=9)
    rate: float = param(0.5, "How fast.", min=0)
    mode: Literal["fast", "slow"] = param("fast", "Which way.")
    sides: tuple[int, int] | None = param(None, "Two sides.", min=1, unit="px")
    exact: bool = param(False, "Whether to be exact.")


def test_options_are_declared_once_and_read_everywhere() -> None:
    assert [option.name for option in options(Sample)] == ["count", "rate", "mode", "sides", "exact"]
    assert "sides: tuple[int, int] or None = None\n        Two sides. [px]" in (Sample.__doc__ or "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "Sample: count must be at least 1, got 0"),
        ({"count": 10}, "Sample: count must be at most 9, got 10"),
        ({"count": 2.5}, "Sample: count must be int, got 2.5"),
        ({"count": True}, "Sample: count must be int, got True"),
        ({"rate": float("nan")}, "Sample: rate must be at least 0, got nan"),
        ({"mode": "medium"}, "Sample: mode must be one of 'fast', 'slow', got 'medium'"),
        ({"sides": (3, 0)}, "Sample: sides must be at least 1 px, got (3, 0)"),
        ({"sides": (3, 3, 3)}, "Sample: sides must be tuple[int, int] or None, got (3, 3, 3)"),
        ({"exact": 1}, "Sample: exact must be bool, got 1"),
    ],
)
def test_a_bad_option_is_refused_before_any_network_is_needed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Sample(**given)
    assert str(caught.value) == message


def test_an_integer_is_a_fine_float() -> None:
    assert Sample(rate=2).rate == 2


def test_probes_are_frozen_comparable_and_named_for_the_command_line() -> None:
    assert Sample(count=4) == Sample(count=4)
    with pytest.raises(AttributeError):
        Sample().count = 5  # type: ignore[misc]

    class FeatureMaps(Probe[Result]):
        """Two words."""

    assert FeatureMaps.name() == "feature-maps"


def test_a_probe_without_a_docstring_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="docstring"):

        class Silent(Probe[Result]):
            pass


def test_mistakes_of_a_probes_author_are_named_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match=r"option 'size' of Plain must be declared with vizcnn.param\("):

        class Plain(Probe[Result]):
            """An option without param()."""

            size: int = 3

    with pytest.raises(TypeError, match="option 'seed' of Taken has a name that every probe uses already"):

        class Taken(Probe[Result]):
            """An option that hides one of everybody's."""

            seed: int = param(3, "Which.")


def test_text_is_read_by_the_options_own_parser() -> None:
    def read(text: str) -> int:
        if not text.isdecimal():
            raise ValueError("a whole number of px")
        return int(text)

    class Reading(Probe[Result]):
        """Reads text."""

        side: int = param(1, "A side.", min=1, parse=read)

    assert Reading(side="7").side == 7  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="Reading: side must be a whole number of px, got 'wide'"):
        Reading(side="wide")  # type: ignore[arg-type]


def test_a_bare_network_is_refused_with_the_remedy() -> None:
    from torch import nn

    with pytest.raises(
        ParameterError, match=r"Sample needs a vizcnn.Model, got Linear. Wrap a network: vizcnn.Model\("
    ):
        Sample()(nn.Linear(1, 1), "x.png")  # type: ignore[arg-type]
