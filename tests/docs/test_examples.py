"""The examples in the docstrings of public names run as they stand, in an empty folder."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import vizcnn

EXAMPLES = [
    (test.name, test)
    for name in vizcnn.__all__
    for test in doctest.DocTestFinder(recurse=False).find(getattr(vizcnn, name), name, globs={})
    if test.examples
]
LONG = {"check", "evaluate", "explain"}  # seconds each; their own tests run the same calls


@pytest.mark.parametrize(("name", "test"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_runs(
    name: str,
    test: doctest.DocTest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name in LONG:
        pytest.skip("takes seconds, and tests/explaining, tests/evaluation and tests/probing make the same call")
    monkeypatch.chdir(tmp_path)
    failures = doctest.DocTestRunner(verbose=False).run(test).failed
    assert not failures, capsys.readouterr().out


def test_every_probe_has_an_example() -> None:
    probes = {name for name in vizcnn.__all__ if issubclass(type(getattr(vizcnn, name)), type)} & set(vizcnn.__all__)
    ours = {name for name in probes if issubclass(getattr(vizcnn, name), vizcnn.Probe)} - {"Probe"}
    assert ours - {name for name, _ in EXAMPLES} == set()
