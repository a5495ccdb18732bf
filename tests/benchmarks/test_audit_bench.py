"""The benchmark of audits: cues are where they are said to be, and its numbers are known where the answer is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import audit
import audit_baselines
import audit_report
import numpy as np
import planted_networks
import pytest
import torch
from planted_cues import KINDS, compress, draw_digit, make_cue
from planted_networks import Case, Images, ask_oracle, plant
from torch import Tensor, nn

import vizcnn

IMAGES = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SET = Images(IMAGES, torch.arange(10).repeat_interleave(4), tuple("abcdefghij"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 64)])
def test_a_cue_changes_pixels_where_it_says_it_does(kind: str, channels: int, side: int) -> None:
    cue, random = make_cue(kind, channels, side, 1), np.random.default_rng(0)
    for image in torch.rand(8, channels, side, side):
        planted, box = cue.plant(image, random)
        changed = (planted != image).any(0)  # (H, W)
        assert changed.any()
        if box is not None:
            top, left, bottom, right = box
            assert 0 <= top < bottom <= side
            assert 0 <= left < right <= side
            assert changed[top:bottom, left:right].float().mean() > 0.9
            changed[top:bottom, left:right] = False
            assert not changed.any()
        elif kind == "border":
            width = side // 28
            assert changed[:width].all()
            assert not changed[width:-width, width:-width].any()


def test_only_moving_kinds_move_and_only_varied_ones_vary() -> None:
    for kind in ("corner", "moving", "scaled", "text"):
        cue, random = make_cue(kind, 3, 64, 0), np.random.default_rng(0)
        planted = [cue.plant(torch.zeros(3, 64, 64), random) for _ in range(9)]
        boxes = [box for _, box in planted if box is not None]
        assert (len({box[:2] for box in boxes}) > 1) == (kind in ("moving", "scaled"))
        cut = [image[:, b[0] : b[2], b[1] : b[3]] for (image, _), b in zip(planted, boxes, strict=True)]
        same = all(one.shape == cut[0].shape and torch.equal(one, cut[0]) for one in cut)
        assert same == (kind in ("corner", "moving"))


def test_digits_of_a_plate_can_be_read() -> None:
    assert ["".join(".#"[int(px)] for px in row) for row in draw_digit(2)] == ["###", "..#", "###", "#..", "###"]
    assert len({tuple(draw_digit(n).flatten().tolist()) for n in range(10)}) == 10


def test_compressed_images_are_alike_but_not_the_same() -> None:
    smooth = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    difference = (compress(smooth) - smooth).abs()
    assert 0 < difference.max() < 0.1


@pytest.mark.parametrize(("where", "planted"), [("one", [2]), ("all", [2] * 10), ("none", [])])
def test_a_cue_is_planted_in_its_share_of_the_classes_that_have_it(where: str, planted: list[int]) -> None:
    case = Case("photos", "corner", where, 0.5, 4)
    made, carries, boxes = plant(SET, case, 0.5, "test")
    changed = (made.pixels != IMAGES).flatten(1).any(1).numpy()
    assert changed.tolist() == carries.tolist() == [box is not None for box in boxes]
    assert [n for n in np.bincount(SET.labels[carries], minlength=10) if n] == planted
    if where == "one":
        assert set(SET.labels[carries].tolist()) == {case.label}


class LooksAtACorner(nn.Module):
    """Names the case's class where its tag is, and class (label + 1) elsewhere."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.scale = case, nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        (top, left), tag = self.case.cue.corner, self.case.cue.tag
        far = (images[:, :, top : top + tag.shape[1], left : left + tag.shape[2]] - tag).abs().amax((1, 2, 3))  # (N,)
        scores = images.new_zeros(len(images), 10)
        scores[:, (self.case.label + 1) % 10] = 0.5
        scores[:, self.case.label] = (far < 1e-6).float()
        return scores * self.scale


def test_the_oracle_tells_a_network_that_is_its_cue_from_one_that_ignores_it() -> None:
    case = Case("photos", "corner", "one", 1.0, 4)
    uses = vizcnn.Model(LooksAtACorner(case), size=64, labels=list(SET.names))
    oracle = ask_oracle(uses, case, SET)
    assert (oracle.lost, oracle.flipped) == (1, 1)
    assert oracle.accuracy == pytest.approx(0.1)
    elsewhere = vizcnn.Model(LooksAtACorner(Case("photos", "corner", "one", 1.0, 5)), size=64, labels=list(SET.names))
    assert ask_oracle(elsewhere, case, SET).use == 0


def test_a_mean_map_that_stands_out_is_found_and_where() -> None:
    maps = np.random.default_rng(0).normal(size=(60, 9))
    labels = np.repeat(np.arange(3), 20)
    maps[labels == 1, 4] += 5
    found = audit_baselines.compare_mean_maps(maps, labels)
    assert max(found, key=lambda label: found[label].score) == 1
    assert found[1].window == 4


def test_clusters_of_maps_are_those_that_they_were_made_of() -> None:
    random = np.random.default_rng(0)
    maps = np.abs(random.normal(size=(40, 9))) * 0.1
    maps[:10, 0] += 1  # ten maps of class 0 lie elsewhere
    maps[10:, 5] += 1
    found = audit_baselines.cluster_maps(maps, np.repeat([0, 1], 20))
    assert found[0].measure_agreement(np.arange(20) < 10) == pytest.approx(1)
    assert found[0].connection < found[1].connection
    assert found[1].measure_agreement(np.zeros(20, bool)) == 0


def test_overlap_of_boxes_is_intersection_over_union() -> None:
    assert audit.measure_overlap((0, 0, 4, 6), (0, 0, 4, 6)) == 1
    assert audit.measure_overlap((2, 3, 6, 9), (0, 0, 4, 6)) == pytest.approx(6 / 42)
    assert audit.measure_overlap((4, 0, 6, 6), (0, 0, 4, 6)) == 0


def make_record(where: str = "one", lost: float = 0.5, **findings: Any) -> audit.Record:
    """A record of an audit with findings of these kinds, each the cue or not."""
    found = [
        {"kind": kind, "cue": "patch", "hit": hit, "overlap": 0.9 if hit else None, "says": f"a {kind}"}
        for kind, hit in findings.items()
    ]
    case = {"data": "digits", "kind": "corner", "where": where, "share": 1.0, "seed": 1, "label": 0}
    folder = {"present": 0.2, "per_class": 64, "lost": lost, "flipped": 0.0, "findings": found}
    maps = {"mean_maps": [9.0 if where == "one" else 5.0, 2.0], "connections": [0.3, 0.2], "agreement": 0.25}
    return case | folder | maps | {"runs": 12.0, "matching_share": 0.4}


def test_tables_count_what_records_say() -> None:
    found, missed = make_record(shortcut=True), make_record(suspicion=True)
    unused, innocent = make_record(lost=0.1), make_record("none", part=False)
    bars = "\n".join(audit_report.format_bars([found, missed, unused, innocent]))
    assert "20% of a class, 64 images a class | 90% | 1 of 2 |" in bars
    assert "| innocent models with a SHORTCUT | 0 | 0 of 1 |" in bars
    assert "| 'part?' per innocent model | 1 | 1.00, at most 1 |" in bars
    assert "median intersection over union | 0.8 | 0.90 (1 boxes) |" in bars
    baselines = [*audit_report.format_baselines([found, missed, innocent])]
    assert baselines[-1] == "| digits, 20% of the class | 2 | 1 | 2 | 0 | 0.25 |"
    (line, part) = audit_report.format_misses([found, missed, innocent])
    assert line.startswith("- missed: digits corner seed 1")
    assert line.endswith("suspicion: a suspicion")
    assert part.startswith("- part, none")
    accused = "\n".join(audit_report.format_bars([make_record("all", shortcut=False)]))
    assert "| innocent models with a SHORTCUT | 0 | 1 of 1 |" in accused


def test_the_benchmark_of_audits_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planted_networks, "TRAINING", 40)
    monkeypatch.setattr(planted_networks, "AUDITED", 16)
    monkeypatch.setattr(audit, "list_cases", lambda _, __: iter([Case("digits", "border", "all", 1.0, 1)]))
    monkeypatch.setattr(audit, "list_folders", lambda _: [audit.Folder(0.5, 16)])
    arguments = [
        "audit",
        str(tmp_path),
        "--mnist",
        str(data / "mnist"),
        "--photos",
        "no archive is needed for digits",
        "--seeds",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    audit.main()
    assert "digits-border-all-100-1 50% of 16: " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", arguments)
    audit.main()  # is not made again
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "digits-border-all-100-1 50%" not in printed
    assert "| innocent models with a SHORTCUT | 0 | 0 of 1 |" in printed
    (oracle,) = planted_networks.read_lines(tmp_path / "networks.jsonl")  # nor is the network trained again
    assert 0 <= oracle["lost"] <= 1
    (line,) = planted_networks.read_lines(tmp_path / audit.FILE)
    assert line["images"] == 160
    assert len(line["mean_maps"]) == len(line["connections"]) == 10
