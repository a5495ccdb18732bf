from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import device
import explaining
import localisation
import maps
import numpy as np
import occlusion
import pytest
import scan
import torch
from localisation import Case

import vizcnn
from vizcnn.geometry import Box


def make_case(box: tuple[int, int, int, int]) -> Case:
    return Case(np.zeros((8, 8, 3), np.uint8), "lemon", box)


def test_hits_and_energy_of_known_maps() -> None:
    inside, outside = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    inside[1, 1], inside[6, 6], inside[0, 7] = 3, 1, -5
    outside[7, 0] = 2
    score = localisation.score_maps(iter([inside, outside, None]), [make_case((0, 2, 0, 2))] * 3)
    assert score.hit == pytest.approx(1 / 3)
    assert score.refused == 1
    assert score.energy == pytest.approx(0.75 / 3)


def test_the_centre_baseline_hits_exactly_the_boxes_that_hold_the_centre() -> None:
    cases = [make_case((0, 8, 0, 8)), make_case((0, 3, 0, 3)), make_case((4, 5, 4, 5))]
    assert localisation.score_maps((localisation.point_at_centre(c) for c in cases), cases).hit == pytest.approx(2 / 3)


def test_the_benchmark_runs(archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["localisation", str(archive), "--images", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    localisation.main()
    printed = capsys.readouterr().out
    assert "| centre point |" in printed
    for name in localisation.list_methods():
        assert f"| {name} |" in printed


def test_overlap_is_intersection_over_union() -> None:
    one = Box(0, 0, 4, 6)
    assert localisation.compute_overlap(one, one) == 1
    assert localisation.compute_overlap(Box(2, 3, 6, 9), one) == pytest.approx(6 / 42)
    assert localisation.compute_overlap(Box(4, 0, 6, 6), one) == localisation.compute_overlap(None, one) == 0


def test_levels_are_measured_in_the_photographs_pixels() -> None:
    """A network that is the light of the image: its map is the square, whose box is known."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with torch.no_grad():
        network[0].weight.fill_(1 / 3)  # type: ignore[operator]
        network[0].bias.zero_()  # type: ignore[operator]
    model = vizcnn.Model(network, size=16, mean=[0] * 3, std=[1] * 3, labels=["lemon"])
    image = np.zeros((16, 16, 3), np.uint8)
    image[4:8, 2:10] = 255
    case = Case(image, "lemon", (4, 8, 2, 14))  # the object is longer than what is light
    *levels, whole = localisation.measure_overlaps(model, vizcnn.Cam(method="cam"), case)
    assert levels == pytest.approx([8 / 12] * len(localisation.LEVELS))
    assert whole == pytest.approx(4 * 12 / 16**2)
    assert localisation.is_small(case)
    dark = Case(np.zeros((16, 16, 3), np.uint8), "lemon", case.box)
    assert not any(localisation.measure_overlaps(model, vizcnn.Cam(method="cam"), dark)[:-1])


def test_the_benchmark_of_levels_runs(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", "2", "--levels", "--methods", "grad-cam", "gradient"]
    monkeypatch.setattr(sys, "argv", ["localisation", str(archive), *options])
    localisation.main()
    row, *small = read_rows(capsys.readouterr().out)
    assert [each[0] for each in (row, *small)] in (["grad-cam"], ["grad-cam", "grad-cam, small"])
    assert max(float(cell.strip("*")) for cell in row[1:10]) == float(next(c for c in row if "**" in c).strip("*"))


def read_rows(printed: str) -> list[list[str]]:
    """The cells of a printed table below its head."""
    table = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return table[1:]


def test_the_benchmark_of_maps_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--networks", "squeezenet1_1", "--size", "64", "--images", "3", "--rounds", "1", "--batches", "2"]
    monkeypatch.setattr(sys, "argv", ["maps", *options, "--samples", "2", "--steps", "3"])
    monkeypatch.setattr(maps, "run_alone", lambda function, *given: function(*pickle.loads(pickle.dumps(given))))

    def measure(run: Callable[[], Any]) -> Any:
        with monkeypatch.context() as inside:
            inside.setattr(maps, "find_last_spatial_layer", None)  # to look for it is no work of captum's
            return occlusion.measure_time(run)

    monkeypatch.setattr(maps, "measure_time", measure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # captum speaks of gradients that it switches on
        maps.main()
    rows = read_rows(capsys.readouterr().out)
    assert [row[1] for row in rows] == list(maps.METHODS)
    assert all(float(row[-1]) < 1e-4 for row in rows if row[1] != "smoothgrad")


def test_the_occlusion_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--networks", "squeezenet1_1", "--size", "64", "--window", "16", "--rounds", "2", "--batches", "4", "16"]
    monkeypatch.setattr(sys, "argv", ["occlusion", *options])
    monkeypatch.setattr(occlusion, "run_alone", lambda function, *given: function(*pickle.loads(pickle.dumps(given))))
    occlusion.main()
    printed = capsys.readouterr()
    (row,) = read_rows(printed.out)
    assert len(row) == occlusion.HEAD.splitlines()[0].count("|") - 1
    assert row[0] == "squeezenet1_1"
    assert int(row[4]) in (4, 16)
    assert float(row[7]) < 1e-4  # the two maps are the same
    assert "Speed-up: median " in printed.out
    assert "worst" in printed.out.splitlines()[-1]
    assert "squeezenet1_1, round 2:" in printed.err


def test_speed_ups_are_medians_over_neighbouring_runs() -> None:
    our_times = tuple(occlusion.Time(wall, 1) for wall in (1, 2, 4))
    captum_times = tuple(occlusion.Time(wall, 3) for wall in (3, 2, 20))
    comparison = occlusion.Comparison(8, our_times, captum_times, 1e-6, {"engine": "incremental", "flops_ideal": 0.25})
    assert (comparison.speedup, comparison.cpu_speedup) == (3, 3)
    assert occlusion.format_row("x", comparison, (1, 2)) == (
        "| x | incremental | 25.0% / - | 2.00 / 3.00 | 8 | 3.00 | 3.00 | 1.0e-06 | 1 / 2 |"
    )


def test_maps_of_rounding_errors_are_not_compared(brightness: vizcnn.Model) -> None:
    question = occlusion.make_question(brightness, torch.ones(1, 3, 8, 8), 2, 2)
    with pytest.raises(ValueError, match="moves the answer by only 0 of it"):
        occlusion.refuse_rounding(question, np.zeros((8, 8), np.float32))


def test_the_scan_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scan", "lecture", "tiny", "--rounds", "2", "--batch", "3", "--threads", "1"])
    before = torch.get_num_threads()
    scan.main()
    torch.set_num_threads(before)
    table = read_rows(capsys.readouterr().out)
    assert [row[:4] for row in table] == [["lecture", "5", "195", "3"], ["tiny", "16", "2,756", "3"]]
    assert all(row[5].endswith("%") for row in table)


def test_the_difference_of_two_results_is_a_share_of_the_largest_number() -> None:
    near = {"values": np.array([1, -4], np.float32), "places": np.array([0, 1])}
    far = {"values": np.array([1, -3.8], np.float32), "places": np.array([1, 0])}
    assert device.measure_difference(far, near) == pytest.approx(0.05)
    assert device.measure_difference(near, near) == 0


def test_the_benchmark_of_devices_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--size", "64", "--images", "2", "--probes", "filters", "layers", "scan"]
    monkeypatch.setattr(sys, "argv", ["device", *arguments])
    device.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| filters", "| layers", "| scan"]
    assert all(row.split(" | ")[1:3] == ["0e+00", "0e+00"] for row in rows)  # the device is the processor itself


@pytest.mark.usefixtures("one_thread")
def test_the_cost_of_an_explanation_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["explaining", "-m", "tiny", "--quick", "--threads", "1"])
    explaining.main()
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert row[:2] == ["| tiny", "quick"]
    assert 200 < int(row[2].replace(",", "")) < 1500
