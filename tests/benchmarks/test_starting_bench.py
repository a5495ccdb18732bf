"""The benchmark of starting runs commands beside an import, and says what they take beyond it."""

from __future__ import annotations

import subprocess

import pytest
import starting


def test_what_a_command_takes_beyond_the_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starting, "IMPORT", ("-c", "pass"))
    starting.main(["--rounds", "1", "--", "--version"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| `vizcnn --version` | ")
    assert 0 < float(row.split("|")[2]) < 5


def test_a_command_that_fails_gives_no_figure() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        starting.measure(["-m", "vizcnn", "cams"], ".", 1)
