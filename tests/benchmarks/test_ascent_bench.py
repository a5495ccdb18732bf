"""The benchmarks of gradient ascent run, and measure what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ascent_quality
import ascent_speed
import pytest
import torch
import torch.nn.functional as F

import vizcnn
from vizcnn.ascent import RECIPES

PHOTO = torch.from_numpy(vizcnn.open_photo("sample:grace_hopper").pixels).permute(2, 0, 1)  # (3, 600, 512)
CORNERS = [(top, left) for top in range(0, 301, 100) for left in range(0, 201, 50)]
IMAGES = torch.stack([PHOTO[:, top : top + 300, left : left + 300] for top, left in CORNERS])
IMAGES = F.interpolate(IMAGES, size=(64, 64), mode="area")  # (20, 3, 64, 64)


def make_bench(tiny: vizcnn.Model) -> ascent_quality.Bench:
    return ascent_quality.Bench(tiny, tiny, "layer4", IMAGES, "layer2", 2)


def test_fine_energy_is_that_above_a_quarter_cycle_per_pixel() -> None:
    columns = torch.arange(32) * torch.pi * 2
    slow, fast = ((columns * frequency).cos().expand(1, 1, 32, 32) for frequency in (0.125, 0.375))
    assert ascent_quality.measure_fine_energy(slow) == pytest.approx(0, abs=1e-6)
    assert ascent_quality.measure_fine_energy(fast) == pytest.approx(1)
    assert ascent_quality.measure_fine_energy(slow + fast + 7) == pytest.approx(0.5, abs=1e-5)


def test_ratios_are_over_the_most_that_an_image_reaches(tiny: vizcnn.Model) -> None:
    with tiny.borrowed(), torch.no_grad():
        highest, logits = make_bench(tiny).highest, tiny(IMAGES)
    torch.testing.assert_close(highest[""], logits.amax(0))


def test_a_judge_that_is_the_network_itself_recognises_its_classes(tiny: vizcnn.Model) -> None:
    with tiny.borrowed(), torch.no_grad():
        row, pictures = ascent_quality.measure_recipe(make_bench(tiny), replace(RECIPES["lecture"], steps=20))
    assert row.transfer == 1
    assert row.class_ratio > 1
    assert pictures.shape == (4, 3, 64, 64)


def test_real_images_are_read_in_the_unit_range(data: Path) -> None:
    images = ascent_quality.read_real_images(data / "mnist", 5)
    assert images.shape == (5, 1, 28, 28)
    assert images.min() == 0
    assert 0.9 < images.max() <= 1


def test_the_quality_benchmark_prints_a_row_per_recipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["lecture", str(data / "mnist"), "--judge", "simple", "--features", "relu2"]
    rows = ascent_quality.main([*given, "--images", "20", "--units", "1", "--recipes", "yosinski-3"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == rows[0].format()
    assert printed[-1].count("|") == ascent_quality.HEAD.splitlines()[0].count("|")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # what the peer calls is its matter
def test_the_speed_benchmark_prints_ratios_to_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lucent", reason="torch-lucent, the peer, is not installed")
    given = ["--rounds", "1", "--channels", "2", "--peer-channels", "1", "--steps", "2", "--size", "64"]
    (times,) = ascent_speed.main(["tiny:layer1", *given])
    assert all(time.wall > 0 for time in times.values())
    assert capsys.readouterr().out.splitlines()[-1].count("|") == ascent_speed.HEAD.splitlines()[0].count("|")


def test_our_side_of_the_speed_benchmark_runs_without_the_peer(tiny: vizcnn.Model) -> None:
    work = ascent_speed.Work(tiny, "layer1", 2, 1, 32)
    assert ascent_speed.measure_time(lambda: ascent_speed.run_ours(work), 2).wall > 0
