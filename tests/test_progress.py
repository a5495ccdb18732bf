"""Progress: what a long call will cost."""

from __future__ import annotations

import time

import pytest

from vizcnn import progress


def test_a_quick_beginning_of_the_first_part_does_not_make_the_whole_look_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress.Whole(1000, "all", "net") as whole:
        with whole.part(100):
            for seconds in 0.1, 9.9:  # the first bar of the part is done at once
                with progress.bar(10, "some", "image") as inner:
                    clock[0] += seconds
                    inner.update(10)
        with whole.part(900), progress.bar(1, "others", "image") as inner:
            clock[0] += 500
            inner.update(1)
    said = capsys.readouterr().err
    assert "about 1,000 runs of net, 100 s" in said
    assert said.count("runs of net") == 1
