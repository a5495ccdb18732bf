"""Do optimised pictures show what a unit has learned? Every recipe measured against the network's own data.

    python benchmarks/ascent_quality.py tiny tiny-imagenet-200.tar.xz --judge mobilenet_v2@FILE --features features
    python benchmarks/ascent_quality.py lecture path/to/mnist --judge simple --features relu2

The activation alone ranks recipes backwards, for noise reaches most. So, of pictures of classes and of channels:
ratio: what the picture reaches over the most that any image of the data reaches, median; above: the share of units for
which that is more than 1. transfer: the share of class pictures that the judge, another network trained by others,
gives the same class, of the classes both know. distance: to the nearest real image in the judge's features, over that
of real images to each other, median. fine: energy above 0.25 cycles per pixel, over that of the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.ascent import RECIPES, Objective, Recipe, optimize
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, target
from vizcnn.models.terms import Unit
from vizcnn.zoo import train_mnist, train_tiny

_BATCH = 100  # images in one run
_FINE = 0.25  # cycles per pixel


@dataclass(frozen=True)
class Bench:
    """A network, a judge of the same classes, and real images (N, C, H, W) in [0, 1] of the network's size."""

    model: Model
    judge: Model
    features: str
    images: Tensor
    layer: str
    units: int

    @cached_property
    def shared_classes(self) -> list[tuple[int, int]]:
        """The classes both networks know, as their indices in the outputs of each."""
        labels, judge_labels = (model.labels or () for model in (self.model, self.judge))
        judge_indices = {label.lower(): i for i, label in enumerate(judge_labels)}
        shared = [(i, label.lower()) for i, label in enumerate(labels) if label.lower() in judge_indices]
        return [(i, judge_indices[label]) for i, label in shared]

    @cached_property
    def highest(self) -> dict[str, Tensor]:
        """The most that any image reaches, of each class and of each channel of the layer."""
        highest: dict[str, list[Tensor]] = {OUTPUT: [], self.layer: []}
        for batch in self.images.split(_BATCH):
            activations = read_activations(self.model, batch, list(highest))
            for name, values in ((each, activations[each]) for each in highest):
                highest[name].append((values.flatten(2).mean(2) if values.dim() > 2 else values).amax(0))
        return {name: torch.stack(values).amax(0) for name, values in highest.items()}

    @cached_property
    def classes(self) -> list[int]:
        """Classes to draw, spread over all that are shared."""
        return _pick_evenly([index for index, _ in self.shared_classes], self.units)

    @cached_property
    def channels(self) -> list[int]:
        """Live channels to draw: those that some image excites."""
        return _pick_evenly(torch.nonzero(self.highest[self.layer] > 0).flatten().tolist(), self.units)

    @cached_property
    def real_features(self) -> Tensor:
        """The judge's features of the images."""
        return self.run_judge(self.images)[0]

    @cached_property
    def real_distance(self) -> float:
        """How far a real image is from its nearest other."""
        half = len(self.real_features) // 2
        return float(torch.cdist(self.real_features[:half], self.real_features[half:]).amin(1).median())

    def run_judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The judge's features (N, D) and its logits of the shared classes (N, K)."""
        classes = [index for _, index in self.shared_classes]
        features, logits = [], []
        for batch in images.split(_BATCH):
            fitted = F.interpolate(batch, self.judge.input.size, mode="bilinear", antialias=True).clamp(0, 1)
            activations = read_activations(self.judge, fitted, [self.features, OUTPUT])
            values = activations[self.features]
            features.append(values.flatten(2).mean(2) if values.dim() > 2 else values)
            logits.append(activations[OUTPUT][:, classes])
        return torch.cat(features), torch.cat(logits)


@dataclass(frozen=True)
class Row:
    """What a recipe measures; see the module's docstring."""

    recipe: str
    class_ratio: float
    channel_ratio: float
    channels_above: float
    transfer: float
    distance: float
    fine: float

    def format(self) -> str:
        """The row as a line of the table."""
        cells = (self.class_ratio, self.channel_ratio, self.channels_above, self.transfer, self.distance, self.fine)
        return f"| {self.recipe} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


HEAD = (
    "| recipe | class ratio | channel ratio | channels above 1 | transfer | distance | fine |\n"
    "|---|---|---|---|---|---|---|"
)


def measure_recipe(bench: Bench, recipe: Recipe, seed: int = 0) -> tuple[Row, Tensor]:
    """A recipe's row, and its pictures (N, C, H, W) of classes and channels."""
    size = (bench.images.shape[2], bench.images.shape[3])
    objectives = [Objective(target(index)) for index in bench.classes]
    objectives += [Objective(target(f"{bench.layer}:{index}")) for index in bench.channels]
    outcome = optimize(bench.model, objectives, recipe, size=size, seed=seed, batch=32, progress=False)
    count = len(bench.classes)
    ratios = [
        _divide_by_highest(bench, objective, float(value))
        for objective, value in zip(objectives, outcome.scores, strict=True)
    ]
    features, logits = bench.run_judge(outcome.pictures)
    shared = torch.tensor([index for index, _ in bench.shared_classes])
    row = Row(
        recipe.name,
        median(ratios[:count]),
        median(ratios[count:]),
        sum(ratio > 1 for ratio in ratios[count:]) / len(ratios[count:]),
        float((shared[logits[:count].argmax(1)] == torch.tensor(bench.classes)).float().mean()),
        float(torch.cdist(features, bench.real_features).amin(1).median()) / bench.real_distance,
        measure_fine_energy(outcome.pictures) / measure_fine_energy(bench.images),
    )
    return row, outcome.pictures


def _divide_by_highest(bench: Bench, objective: Objective, value: float) -> float:
    """A picture's value over the most that any image of the data reaches."""
    ((_, unit),) = objective.target.terms
    assert isinstance(unit, Unit)
    return value / float(bench.highest[unit.layer][int(unit.channel)])


def measure_fine_energy(images: Tensor) -> float:
    """The share of the images' energy (N, C, H, W), without their mean colour, above a quarter cycle per pixel."""
    energy = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square()
    down, across = torch.fft.fftfreq(images.shape[2])[:, None], torch.fft.fftfreq(images.shape[3])[None]
    return float(energy[..., torch.hypot(down, across) > _FINE].sum() / energy.sum())


def _pick_evenly(indices: Sequence[int], count: int) -> list[int]:
    """So many of the indices, evenly spread."""
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def read_real_images(source: Path, count: int) -> Tensor:
    """Images (N, C, H, W) of Tiny ImageNet's archive or of MNIST's folder, always the same ones, in [0, 1]."""
    if source.is_dir():
        images = train_mnist.read_digits(source, "t10k")[0]
    else:
        images = train_tiny.validation_split(train_tiny.read_archive(source)).images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images[chosen].float() / (255 if images.dtype == torch.uint8 else 1)


def _save_sheet(pictures: Tensor, out: Path) -> None:
    """Save the pictures side by side, in rows of 16."""
    from PIL import Image

    rows = [torch.cat(list(row), 2) for row in pictures.split(16) if len(row) == 16]
    sheet = (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(sheet.squeeze()).save(out)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the network whose units are drawn")
    parser.add_argument("data", type=Path, help="tiny-imagenet-200.tar.xz, or the folder of MNIST's idx files")
    parser.add_argument("--judge", required=True, help="another network for the same classes")
    parser.add_argument("--features", required=True, help="the judge's layer in which images are compared")
    parser.add_argument("--layer", default=None, help="the layer whose channels are drawn; default: by the network")
    parser.add_argument("--units", type=int, default=32, help="how many classes, and how many channels")
    parser.add_argument("--images", type=int, default=2000, help="how many real images")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0, help="the seed of the pictures")
    parser.add_argument("--sheets", type=Path, help="a folder for the pictures")
    options = parser.parse_args(arguments)
    model, judge = load(options.model), load(options.judge)
    layer = options.layer or {"tiny": "layer2", "lecture": "relu2"}.get(model.name, "")
    bench = Bench(model, judge, options.features, read_real_images(options.data, options.images), layer, options.units)
    rows = []
    print(HEAD)
    with model.borrowed(), judge.borrowed(), torch.no_grad():
        for name in options.recipes:
            row, pictures = measure_recipe(bench, RECIPES[name], options.seed)
            print(row.format(), flush=True)
            rows.append(row)
            if options.sheets:
                _save_sheet(pictures, options.sheets / f"{model.name}-{name}.png")
    return rows


if __name__ == "__main__":
    main()
