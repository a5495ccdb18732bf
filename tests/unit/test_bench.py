from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vizcnn.bench import localisation
from vizcnn.bench.localisation import Case


def case(box: tuple[int, int, int, int]) -> Case:
    return Case(np.zeros((8, 8, 3), np.uint8), "lemon", box)


def test_hits_and_energy_of_known_maps() -> None:
    inside, outside = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    inside[1, 1], inside[6, 6], inside[0, 7] = 3, 1, -5
    outside[7, 0] = 2
    found = localisation.scored(iter([inside, outside, None]), [case((0, 2, 0, 2))] * 3)
    assert found.hit == pytest.approx(1 / 3)
    assert found.refused == 1
    assert found.energy == pytest.approx(0.75 / 3)


def test_the_centre_baseline_hits_exactly_the_boxes_that_hold_the_centre() -> None:
    among = [case((0, 8, 0, 8)), case((0, 3, 0, 3)), case((4, 5, 4, 5))]
    assert localisation.scored((localisation.centre(c) for c in among), among).hit == pytest.approx(2 / 3)


def test_the_benchmark_runs(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["localisation", str(data / "tiny-imagenet-200.tar.xz"), "--images", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    localisation.main()
    printed = capsys.readouterr().out
    assert "| centre point |" in printed
    for name in localisation.methods():
        assert f"| {name} |" in printed
