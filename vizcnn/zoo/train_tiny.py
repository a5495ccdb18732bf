"""Train the bundled network `tiny` on Tiny ImageNet, from the archive to the shipped file.

    python -m vizcnn.zoo.train_tiny tiny-imagenet-200.tar.xz --out runs/tiny

Stopped at any moment, the same command goes on from the last finished epoch. Recipe: SGD with Nesterov momentum and
a one-cycle learning rate, images growing from 32 to 64 px, random crops and flips, label smoothing, averaged weights.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vizcnn.zoo.networks import TinyResNet
from vizcnn.zoo.shipping import resumed, save_checkpoint, ship, write_card

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    epochs: int = 44
    batch: int = 128
    peak_lr: float = 0.15
    warmup: float = 0.15  # share of all steps
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    average: float = 0.999  # decay of the averaged weights, per step
    seed: int = 0

    def size(self, epoch: int) -> int:
        """Side of the training images in px: 32, 48, then 64 for the last 40% of the epochs."""
        done = epoch / self.epochs
        return 32 if done < 0.3 else 48 if done < 0.6 else 64

    def smallest_crop(self, epoch: int) -> float:
        """Area of the smallest random crop: the last two epochs see almost whole images, as the test does."""
        return 0.8 if epoch >= self.epochs - 2 else 0.4

    def lr(self, done: float) -> float:
        """Learning rate at the share `done` of all steps: linear up, then a cosine down to zero."""
        if done < self.warmup:
            return self.peak_lr * done / self.warmup
        return self.peak_lr * 0.5 * (1 + float(np.cos(np.pi * (done - self.warmup) / (1 - self.warmup))))


@dataclass(frozen=True)
class Split:
    images: Tensor  # (N, 3, 64, 64), uint8
    labels: Tensor  # (N,), int64


Members = dict[str, bytes]


def read_archive(archive: Path) -> Members:
    """All files of the archive by name, undecoded."""
    with tarfile.open(archive, "r:*") as tar:
        streams = ((member.name, tar.extractfile(member)) for member in tar)
        return {name.removeprefix("./"): stream.read() for name, stream in streams if stream is not None}


def class_names(members: Members) -> tuple[list[str], list[str]]:
    """WordNet ids in the order of `wnids.txt`, and for each the first of its names."""
    wnids = members["wnids.txt"].decode().split()
    words = dict(line.split("\t") for line in members["words.txt"].decode().splitlines())
    return wnids, [words[wnid].split(",")[0].strip() for wnid in wnids]


def training_split(members: Members) -> Split:
    index = {wnid: i for i, wnid in enumerate(class_names(members)[0])}
    names = sorted(name for name in members if name.startswith("train/") and name.endswith(".JPEG"))
    return _decode(members, [(name, index[name.split("/")[1]]) for name in names])


def validation_split(members: Members) -> Split:
    index = {wnid: i for i, wnid in enumerate(class_names(members)[0])}
    rows = [line.split("\t") for line in members["val/val_annotations.txt"].decode().splitlines()]
    return _decode(members, [(f"val/images/{row[0]}", index[row[1]]) for row in rows])


def _decode(members: Members, items: list[tuple[str, int]]) -> Split:
    pixels = [np.asarray(Image.open(io.BytesIO(members[name])).convert("RGB")) for name, _ in items]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()  # (N, 3, 64, 64)
    return Split(images, torch.tensor([label for _, label in items]))


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std  # (N, 3, H, W)


def augmented(images: Tensor, size: int, smallest: float, random: torch.Generator) -> Tensor:
    """Random crops of area `smallest`..1 and aspect 3/4..4/3, half of them mirrored, resampled to `size` px."""
    n = len(images)
    area = torch.empty(n).uniform_(smallest, 1, generator=random)
    aspect = torch.empty(n).uniform_(-0.288, 0.288, generator=random).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    offset = torch.empty(2, n).uniform_(-1, 1, generator=random)
    mirror = torch.randint(0, 2, (n,), generator=random) * 2 - 1
    zero = torch.zeros(n)
    rows = [
        torch.stack([width * mirror, zero, offset[0] * (1 - width)], 1),
        torch.stack([zero, height, offset[1] * (1 - height)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 3, 64, 64], align_corners=False)
    crops = F.grid_sample(normalised(images), grid, padding_mode="reflection", align_corners=False)  # (N, 3, 64, 64)
    small = crops if size == 64 else F.interpolate(crops, size=(size, size), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def batches(split: Split, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
    order = torch.randperm(len(split.labels), generator=random)
    for chosen in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
        yield (
            augmented(split.images[chosen], recipe.size(epoch), recipe.smallest_crop(epoch), random),
            split.labels[chosen],
        )


@torch.inference_mode()
def accuracy(network: nn.Module, split: Split) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, in percent, float32, one view of each whole image."""
    network.eval()
    top1 = top5 = 0
    for images, labels in zip(split.images.split(50), split.labels.split(50), strict=True):
        best = network(normalised(images)).topk(5).indices  # (N, 5)
        hits = best == labels[:, None]
        top1, top5 = top1 + int(hits[:, 0].sum()), top5 + int(hits.sum())
    return 100 * top1 / len(split.labels), 100 * top5 / len(split.labels)


def _channels_last(network: TinyResNet) -> TinyResNet:
    """The memory layout in which convolutions run fastest on a CPU."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


class Run:
    """A training run and its checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path, classes: int) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.checkpoint = recipe, folder / "checkpoint.pth"
        self.network = _channels_last(TinyResNet(classes))
        self.average = _channels_last(TinyResNet(classes))
        self.average.load_state_dict(self.network.state_dict())
        decay = [p for p in self.network.parameters() if p.dim() > 1]
        plain = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=recipe.momentum, nesterov=True)
        self.parts = {"network": self.network, "average": self.average, "optimiser": self.optimiser}
        self.epoch = resumed(self.checkpoint, self.parts, asdict(recipe))

    def train_epoch(self, split: Split) -> float:
        """One pass over the training images; returns the mean loss."""
        self.network.train()
        steps = len(split.labels) // self.recipe.batch
        total = 0.0
        for step, (images, labels) in enumerate(batches(split, self.recipe, self.epoch)):
            self._set_lr((self.epoch + step / steps) / self.recipe.epochs)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.recipe.smoothing)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self._average(self.epoch * steps + step)
            total += loss.item()
        self.epoch += 1
        save_checkpoint(self.checkpoint, self.parts, asdict(self.recipe), self.epoch)
        return total / steps

    def _set_lr(self, done: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr(done)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        weight = 1 - min(self.recipe.average, (1 + step) / (10 + step))
        for kept, fresh in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(fresh, weight)
            else:
                kept.copy_(fresh)


def facts(labels: list[str], top1: float, top5: float) -> dict[str, Any]:
    """What vizcnn.zoo reads beside the weights."""
    return {
        "architecture": TinyResNet.__name__,
        "input": {
            "size": [64, 64],
            "channels": 3,
            "mean": MEAN,
            "std": STD,
            "resize": None,
            "interpolation": "bicubic",
            "antialias": False,
        },
        "labels": labels,
        "accuracy": {"data": "the 10,100 validation images", "top1": round(top1, 2), "top5": round(top5, 2)},
        "data": "Tiny ImageNet, 202 classes, 101,000 training images of 64 x 64 px",
        "licence": "MIT, like vizcnn; trained on ImageNet photographs, whose terms allow research and teaching",
        "reproduce": "python -m vizcnn.zoo.train_tiny tiny-imagenet-200.tar.xz --out runs/tiny",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="Tiny ImageNet as a tar file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the result")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    members = read_archive(options.archive)
    labels = class_names(members)[1]
    train, val = training_split(members), validation_split(members)
    run = Run(Recipe(epochs=options.epochs), options.out, len(labels))
    while run.epoch < run.recipe.epochs:
        start = time.time()
        loss = run.train_epoch(train)
        top1, top5 = accuracy(run.average, val)
        print(
            f"epoch {run.epoch:3d}  loss {loss:.3f}  top-1 {top1:.2f}  top-5 {top5:.2f}  {time.time() - start:.0f} s",
            flush=True,
        )
    ship(run.average, options.out / "tiny.safetensors")
    write_card(options.out / "tiny.json", facts(labels, *accuracy(run.average.half().float(), val)))


if __name__ == "__main__":
    main()
