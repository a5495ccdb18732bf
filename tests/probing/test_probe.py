from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from types import new_class
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

import vizcnn.cli.main
from vizcnn import Probe, Result, param
from vizcnn.errors import ParameterError
from vizcnn.probing.call import CALL_NAMES
from vizcnn.probing.probe import list_options, list_reserved
from vizcnn.probing.subject import Subject
from vizcnn.results import Table


class Sample(Probe[Result]):
    """A probe with every kind of option."""

    count: int = param(3, "How many.", min=1, max=9)
    rate: float = param(0.5, "How fast.", min=0)
    mode: Literal["fast", "slow"] = param("fast", "Which way.")
    sides: tuple[int, int] | None = param(None, "Two sides.", min=1, unit="px")
    exact: bool = param(False, "Whether to be exact.")


def test_options_are_declared_once_and_read_everywhere() -> None:
    assert [option.name for option in list_options(Sample)] == ["count", "rate", "mode", "sides", "exact"]
    assert "\nsides: tuple[int, int] or None = None\n    Two sides. [px]" in (Sample.__doc__ or "")


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


def probe_with_an_option(name: str, base: type = Probe) -> None:
    """Define a probe whose only option has this name."""
    body = {"__doc__": "A probe.", "__annotations__": {name: str}, "__module__": __name__, name: param("x", "Which.")}
    new_class("Taking", (base,), exec_body=lambda space: space.update(body))


@pytest.mark.parametrize("name", sorted(list_reserved() | {n for n in dir(Probe) if not n.startswith("__")}))
def test_no_option_has_a_name_that_means_something_already(name: str) -> None:
    with pytest.raises(TypeError, match=f"option '{name}' of Taking (has a name that every probe|would hide what)"):
        probe_with_an_option(name)


def test_an_option_may_replace_an_inherited_option_but_nothing_else() -> None:
    class Base(Probe[Result]):
        """A base."""

        count: int = param(3, "How many.")

        def helper(self) -> int:
            return self.count

    with pytest.raises(TypeError, match="option 'helper' of Taking would hide what Base.helper is for"):
        probe_with_an_option("helper", Base)
    probe_with_an_option("count", Base)


class Everything(Probe[Result]):
    """A probe that has all of the shared options."""

    makes_maps = True

    def answer(self, *_: Any, **__: Any) -> Result:
        raise NotImplementedError

    def estimate_cost(self, subject: Subject) -> None: ...


class Alone(Probe[Result]):
    """A probe of the network alone."""

    needs_images = False


def test_what_the_command_line_reads_for_every_probe_is_reserved_and_nothing_else_is() -> None:
    shared = [
        each
        for probe in (Everything, Alone)
        for each in (*vizcnn.cli.main._make_arguments(probe), *vizcnn.cli.main._list_shared(probe))
    ]
    flags = {flag[2:].replace("-", "_") for each in shared for flag in each.opts if flag.startswith("--")}
    read = {*flags, *(each.name for each in shared)}
    calls = {*signature(Probe.__call__).parameters, *signature(Probe.dry_run).parameters} - {"self"}
    assert read | calls | {"help"} == list_reserved()
    assert read == CALL_NAMES


def test_an_option_that_only_the_command_line_would_know_cannot_be_added_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would reach the probe, which does not have it."""
    common = vizcnn.cli.main._list_shared
    monkeypatch.setattr(
        vizcnn.cli.main, "_list_shared", lambda probe: [*common(probe), click.Option(["--new"], default="x")]
    )
    answer = CliRunner().invoke(vizcnn.cli.main.make_command("filters"), ["lecture"])
    assert isinstance(answer.exception, TypeError)
    assert "unexpected keyword argument 'new'" in str(answer.exception)


def test_what_a_probe_does_not_have_is_said() -> None:
    with pytest.raises(ParameterError, match="Sample has no answer in the index of a scan"):
        Sample().answer(None, "conv:1")  # type: ignore[arg-type]
    assert not Sample().keeps_frames()
    assert Sample().labels_from() is None


def test_a_partial_result_is_raised_as_interrupted_by_the_call_alone(tiny: vizcnn.Model) -> None:
    @dataclass(frozen=True)
    class Half(Table):
        partial: bool = False

    class Stopping(Probe[Half]):
        """Stops half-way."""

        needs_images = False
        needs_target = False
        early: bool = param(False, "Whether it is stopped.")

        def compute(self, subject: Subject) -> Half:
            return Half(subject.provenance(), ("layer",), (("conv",),), (), partial=self.early)

    assert not Stopping()(tiny).partial
    with pytest.raises(vizcnn.Interrupted) as caught:
        Stopping(early=True)(tiny)
    assert caught.value.result.partial


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
