"""What do bf16 and a tolerance gain on trained networks, and what do they cost in truth?

    python benchmarks/approximate.py DATA

DATA is a folder with weights/ and images/photos/. The class predicted for each photograph is explained by captum, at
its fastest perturbations_per_eval (of 1, 8, 16, 32, on the first photograph), and by our probe, cold, in each mode,
with a run of captum before each; a row has the median and the worst over the photographs.

Speed-up: over captum, in wall time. Error: the largest difference from captum's map anywhere, as a share of that map's
largest value. Rank correlation: Spearman's, of the two maps, one number per cell between the windows' edges. Stated
error: what the probe itself measured on the windows that it checked. Back: how often it went back to the exact way.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from occlusion import BATCHES, Array, Question, apart, best_batch, machine, question, say, timed
from torch import nn

from vizcnn.inputs.images import open_photo
from vizcnn.models.loading import load, read_weights
from vizcnn.models.model import Model
from vizcnn.occlusion import spearman

MODES: Mapping[str, Mapping[str, Any]] = {
    "exact": {},
    "bf16": {"precision": "bf16"},
    "tolerance": {"tolerance": 0.01},
    "bf16 and tolerance": {"precision": "bf16", "tolerance": 0.01},
}


def torchvisions(name: str, weights: Path) -> nn.Module:
    return load(f"{name}@{weights}").network


def tiny_darknet(_: str, weights: Path) -> nn.Module:
    """A chain of convolutions, BatchNorm and LeakyReLU, for 1000 classes."""
    stages = ["3-16-3 P 16-32-3 P 32-16-1 16-128-3 128-16-1 16-128-3 P 128-32-1 32-256-3 256-32-1 32-256-3 P",
              "256-64-1 64-512-3 512-64-1 64-512-3 512-128-1"]  # fmt: skip
    layers = [layer for text in " ".join(stages).split() for layer in _layers(text)]
    network = nn.Sequential(*layers, nn.Conv2d(128, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.load_state_dict(read_weights(weights))
    return network


def _layers(text: str) -> list[nn.Module]:
    """`P` is a pool, `16-32-3` a convolution of 3 px from 16 to 32 channels."""
    if text == "P":
        return [nn.MaxPool2d(2, 2)]
    inputs, outputs, kernel = map(int, text.split("-"))
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3), nn.LeakyReLU(0.1)]


NETWORKS: Mapping[str, Callable[[str, Path], nn.Module]] = {
    "mobilenet_v2": torchvisions,
    "squeezenet1_0": torchvisions,
    "tiny_darknet": tiny_darknet,
}


def trained(name: str, data: Path, size: int) -> Model:
    """A trained network for photographs, at an input of `size` px."""
    network = NETWORKS[name](name, data / "weights" / f"{name}.fp16.pth").float()
    resize = round(size * 256 / 224)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Model(network, size=size, mean=mean, std=std, resize=resize, name=name)


def photographs(data: Path, count: int) -> list[Path]:
    """Photographs, always the same ones, in random order."""
    files = sorted((data / "images" / "photos").glob("*.jpg"))
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]


@dataclass(frozen=True)
class Outcome:
    """One mode on one photograph."""

    speed: float
    error: float
    correlation: float
    stated: float
    back: bool


def outcome(both: Question, batch: int, options: Mapping[str, Any]) -> Outcome:
    """One mode's outcome on one photograph, against a run of captum right before it."""
    expected, captum_time = timed(partial(both.captums, batch))
    ours, our_time = timed(partial(both.ours, **options))
    field, details = ours.values[0, 0], ours.provenance.details
    return Outcome(
        speed=captum_time.wall / our_time.wall,
        error=apart(field, expected),
        correlation=spearman(*(cells(one, both.window, both.stride) for one in (field, expected))),
        stated=float(details.get("error") or 0.0),
        back=went_back(options, details),
    )


def went_back(options: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    """Whether an approximate mode gave exact numbers after all."""
    return bool(options) and (details["engine"] == "plain" or bool(details.get("went_back")))


def cells(field: Array, window: int, stride: int) -> npt.NDArray[np.float64]:
    """A number for each part of the map that the same windows cover: its pixels are equal but for rounding."""
    rows, columns = (np.array(_starts(length, window, stride)) for length in field.shape)
    chosen: npt.NDArray[np.float64] = field[np.ix_(rows, columns)].astype(np.float64).ravel()
    return chosen


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where, along one side, the set of windows over a pixel changes."""
    tops = range(0, -(-(length - window) // stride) * stride + 1, stride)
    return sorted({edge for top in tops for edge in (top, top + window) if edge < length})


HEAD = "| network | mode | speed-up | error | rank correlation | stated error | back |\n|" + "---|" * 7


def row(network: str, mode: str, found: Sequence[Outcome]) -> str:
    """Median and worst of each number."""
    speed, correlation = ([getattr(one, name) for one in found] for name in ("speed", "correlation"))
    error, stated = ([getattr(one, name) for one in found] for name in ("error", "stated"))
    cells = (
        network,
        mode,
        f"{statistics.median(speed):.2f}, worst {min(speed):.2f}",
        f"{statistics.median(error):.1e}, worst {max(error):.1e}",
        f"{statistics.median(correlation):.4f}, worst {min(correlation):.4f}",
        f"{statistics.median(stated):.1e}, worst {max(stated):.1e}",
        f"{sum(one.back for one in found)} of {len(found)}",
    )
    return f"| {' | '.join(cells)} |"


def measured(model: Model, photos: Sequence[Path], window: int, stride: int) -> list[dict[str, Outcome]]:
    """The outcomes on each photograph; captum's batch is chosen on the first."""
    found: list[dict[str, Outcome]] = []
    for i, photo in enumerate(photos):
        image, _ = model.prepared(open_photo(photo))
        both = question(model, image[None], window, stride)
        if i == 0:
            batch = best_batch(both, BATCHES)
        found.append({mode: outcome(both, batch, probe) for mode, probe in MODES.items()})
        say(f"{model.name}, photograph {i + 1}: " + ", ".join(f"{m} {o.speed:.2f}" for m, o in found[-1].items()))
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with weights/ and images/photos/")
    parser.add_argument("--networks", nargs="+", default=tuple(NETWORKS), choices=tuple(NETWORKS))
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--stride", type=int, default=16)
    return parser.parse_args()


def main() -> None:
    options = _options()
    photos = photographs(options.data, options.photos)
    print(f"{machine(None, 'each mode')}; {len(photos)} photographs, {options.size} px, window {options.window}, "
          f"stride {options.stride}\n\n{HEAD}")  # fmt: skip
    for name in options.networks:
        found = measured(trained(name, options.data, options.size), photos, options.window, options.stride)
        for mode in MODES:
            print(row(name, mode, [one[mode] for one in found]), flush=True)


if __name__ == "__main__":
    main()
