"""Do the maps lie on the object? The pointing game on Tiny ImageNet's boxes, for every saliency and CAM method.

    python benchmarks/localisation.py tiny-imagenet-200.tar.xz
    python benchmarks/localisation.py tiny-imagenet-200.tar.xz --levels
    python benchmarks/localisation.py tiny-imagenet-200.tar.xz --levels -m mobilenet_v2@FILE --methods grad-cam cam

Each map explains the image's true class. hit: the share of images whose strongest pixel lies in the object's box
(Zhang et al. 2016, arXiv:1608.00507, without its tolerance). energy: the mean share of the map's positive part that
lies in the box. Both stand beside the centre of the image and beside a random map.

With --levels: at which share of a map's maximum does the region around that maximum fit the object best? For every CAM
method the mean, over images, of intersection over union of the region's box with the object's, beside a box around all
that the network sees; and the same over the images whose object's box is smaller than half of the image, as around
larger objects a box says little. For networks of other sizes images are resized; only classes that the network knows
are taken.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from vizcnn.errors import DegenerateResult
from vizcnn.geometry import Box
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.probes import cam, saliency
from vizcnn.probing.probe import Probe
from vizcnn.results import Heatmap
from vizcnn.zoo import train_tiny

Array = npt.NDArray[np.float32]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Case:
    """An image (64, 64, 3), the name of its class, and its object's box as (top, bottom, left, right) in px."""

    image: npt.NDArray[np.uint8]
    label: str
    box: tuple[int, int, int, int]


def read_cases(archive: Path, count: int) -> list[Case]:
    """Validation images, always the same ones, in random order."""
    members = train_tiny.read_archive(archive)
    wnids, names = train_tiny.read_classes(members)
    split = train_tiny.validation_split(members)
    rows = [row.split("\t") for row in members["val/val_annotations.txt"].decode().splitlines()]
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return [
        _make_case(split.images[i].permute(1, 2, 0).numpy(), names[wnids.index(rows[i][1])], rows[i]) for i in chosen
    ]


def _make_case(image: npt.NDArray[np.uint8], label: str, row: list[str]) -> Case:
    x0, y0, x1, y1 = map(int, row[2:6])  # the last row and column belong to the box
    return Case(image, label, (y0, y1 + 1, x0, x1 + 1))


def list_methods() -> dict[str, Probe[Heatmap]]:
    """Every method of the two probes, by name."""
    probes: dict[str, Probe[Heatmap]] = {m: saliency.Saliency(method=m) for m in get_args(saliency.Method)}
    return probes | {m: cam.Cam(method=m) for m in get_args(cam.Method)}


def point_at_centre(case: Case) -> Array:
    """A map (H, W) with all weight on the image's centre."""
    height, width, _ = case.image.shape
    values = np.zeros((height, width), np.float32)
    values[height // 2, width // 2] = 1
    return values


def draw_random_map(case: Case) -> Array:
    """A map (H, W) of random numbers, for one image always the same."""
    height, width, _ = case.image.shape
    return np.random.default_rng(int(case.image.sum())).random((height, width), np.float32)


def compute_map(model: Model, probe: Probe[Heatmap], case: Case) -> Array | None:
    """The probe's map of the case, or None where the method refuses it."""
    try:
        values: Array = probe(model, case.image, case.label, progress=False).values[0, 0]
    except DegenerateResult:
        return None
    return values


@dataclass(frozen=True)
class Score:
    """What a method's maps score: the columns of the table, and of how many images."""

    hit: float
    energy: float
    refused: int
    images: int

    def format_row(self, name: str) -> str:
        """The table's line for the method of this name."""
        error = math.sqrt(self.hit * (1 - self.hit) / self.images)
        return f"| {name} | {self.hit:.1%} ± {error:.1%} | {self.energy:.1%} | {self.refused} |"


def score_maps(maps: Iterator[Array | None], cases: list[Case]) -> Score:
    """The score of one map (H, W) per case; a map that was refused, None, is a miss with no energy."""
    hits, energy, refused = 0, 0.0, 0
    for values, case in zip(maps, cases, strict=True):
        if values is None:
            refused += 1
            continue
        top, bottom, left, right = case.box
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        hits += int(top <= y < bottom and left <= x < right)
        positive = np.clip(values, 0, None)
        energy += float(positive[top:bottom, left:right].sum() / max(float(positive.sum()), 1e-12))
    return Score(hits / len(cases), energy / len(cases), refused, len(cases))


def compute_overlap(one: Box | None, other: Box) -> float:
    """Intersection over union of two boxes; 0 where there is none."""
    if one is None:
        return 0.0
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    width = min(one.right, other.right) - max(one.left, other.left)
    both = max(0.0, height) * max(0.0, width)
    areas = [(box.bottom - box.top) * (box.right - box.left) for box in (one, other)]
    return both / (sum(areas) - both)


def measure_overlaps(model: Model, probe: Probe[Heatmap], case: Case) -> list[float]:
    """How well the box of the strongest region fits the object's, for each of LEVELS; last, how well a box around all
    that the network sees does. A map that is refused fits nowhere."""
    top, bottom, left, right = case.box
    try:
        found = probe(model, case.image, case.label, progress=False)
    except DegenerateResult:
        return [0.0] * len(LEVELS) + [float("nan")]
    values, seen = torch.from_numpy(found.values[0, 0]), found.seen[0]
    regions = [cam.find_strongest_region(values, level) for level in LEVELS]
    boxes = [region and region.map_onto((values.shape[0], values.shape[1]), seen) for region in regions]
    return [compute_overlap(box, Box(top, left, bottom, right)) for box in (*boxes, seen)]


def format_levels(name: str, overlaps: Iterable[Sequence[float]]) -> str:
    """The table's line for the method of this name: a mean for each level, the best of them in bold."""
    *levels, whole = np.nanmean(np.array([*overlaps]), 0).tolist()
    cells = [f"**{value:.3f}**" if value == max(levels) else f"{value:.3f}" for value in levels]
    return f"| {name} | {' | '.join(cells)} | {whole:.3f} |"


def is_small(case: Case) -> bool:
    """Whether the object's box is smaller than half of the image."""
    (top, bottom, left, right), (height, width, _) = case.box, case.image.shape
    return bool(2 * (bottom - top) * (right - left) < height * width)


def print_levels(model: Model, probes: dict[str, Probe[Heatmap]], cases: list[Case]) -> None:
    """The table of how well boxes at several levels fit."""
    known = [case for case in cases if case.label in (model.labels or ())]
    small = [is_small(case) for case in known]
    print(f"| {model.name}, {len(known)} images, {sum(small)} small | {' | '.join(map(str, LEVELS))} | whole image |")
    print("|---" * (len(LEVELS) + 2) + "|")
    for name, probe in probes.items():
        overlaps = [measure_overlaps(model, probe, case) for case in tqdm(known, desc=name, leave=False)]
        print(format_levels(name, overlaps))
        if any(small):
            print(format_levels(f"{name}, small", [row for row, is_one in zip(overlaps, small, strict=True) if is_one]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="Tiny ImageNet as a tar file")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("-m", "--model", default="tiny")
    parser.add_argument("--levels", action="store_true", help="measure boxes of CAM methods at several levels instead")
    parser.add_argument("--methods", nargs="+", choices=list_methods(), help="by default all", metavar="METHOD")
    options = parser.parse_args()
    probes = {name: probe for name, probe in list_methods().items() if name in (options.methods or list_methods())}
    model, cases = load(options.model), read_cases(options.archive, options.images)
    if options.levels:
        print_levels(model, {name: probe for name, probe in probes.items() if isinstance(probe, cam.Cam)}, cases)
        return
    if model.input.size != (64, 64):
        raise SystemExit(f"the boxes are in px of 64 x 64 images, and {model.name} takes {model.input.size}")
    print(f"| {options.model}, {len(cases)} images | hit | energy | refused |\n|---|---|---|---|")
    baselines: dict[str, Callable[[Case], Array]] = {"centre point": point_at_centre, "random map": draw_random_map}
    for name, make in baselines.items():
        print(score_maps((make(case) for case in cases), cases).format_row(name), flush=True)
    for name, probe in probes.items():
        maps = (compute_map(model, probe, case) for case in tqdm(cases, desc=name, leave=False))
        print(score_maps(maps, cases).format_row(name), flush=True)


if __name__ == "__main__":
    main()
