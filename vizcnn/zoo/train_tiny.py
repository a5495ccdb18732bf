"""Train the bundled networks `tiny` and `eleven` on Tiny ImageNet, from the archive to the shipped files.

    python -m vizcnn.zoo.train_tiny tiny-imagenet-200.tar.xz --network tiny --out runs/tiny

Stopped at any moment, the same command goes on from the last finished epoch. Recipe: SGD with Nesterov momentum,
cycles of the learning rate (Loshchilov & Hutter 2017, arXiv:1608.03983), images growing to 64 px, random crops and
flips, label smoothing, averaged weights.
"""

from __future__ import annotations

import argparse
import copy
import io
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vizcnn.models.sources import bundled_networks as networks
from vizcnn.zoo.shipping import resume, save_checkpoint, ship, write_card

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Cycle:
    """Epochs in which the learning rate goes up to its peak, and down to zero along a cosine.

    warmup: the share of them in which it rises. sizes: the side of the training images in px, up to which share.
    interpolation: how crops are enlarged, see torch's grid_sample.
    revive: begin with `revive_filters`."""

    epochs: int
    peak_lr: float
    warmup: float
    sizes: tuple[tuple[float, int], ...]
    interpolation: str
    revive: bool = False

    def find_lr(self, epoch: float) -> float:
        done = epoch / self.epochs
        if done < self.warmup:
            return self.peak_lr * done / self.warmup
        return self.peak_lr * 0.5 * (1 + float(np.cos(np.pi * (done - self.warmup) / (1 - self.warmup))))

    def find_size(self, epoch: int) -> int:
        """Random crops show things larger than the whole image does, so that 56 px train for a test at 64
        (Touvron et al. 2019, arXiv:1906.06423), and for less."""
        return next(size for share, size in self.sizes if epoch < share * self.epochs)

    def find_smallest_crop(self, epoch: int) -> float:
        """Area of the smallest random crop: the last two epochs see almost whole images, as the test does."""
        return 0.8 if epoch >= self.epochs - 2 else 0.4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    network: str
    cycles: tuple[Cycle, ...]
    batch: int = 128
    workers: int = 2  # threads that share a batch; each normalises its part by its own statistics
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    average: float = 0.999  # decay of the averaged weights, per step
    seed: int = 0

    @property
    def epochs(self) -> int:
        return sum(cycle.epochs for cycle in self.cycles)

    def find_cycle(self, epoch: int) -> tuple[Cycle, int]:
        """The cycle that an epoch belongs to, and how many of the cycle's epochs came before."""
        for cycle in self.cycles:
            if epoch < cycle.epochs:
                return cycle, epoch
            epoch -= cycle.epochs
        raise IndexError(f"the recipe has no epoch {self.epochs + epoch}")


_GROWING = Cycle(48, 0.15, 0.15, ((0.3, 32), (0.6, 48), (0.9, 56), (1.0, 64)), "bilinear")
_SHARP = Cycle(12, 0.05, 0.1, ((1.0, 64),), "bicubic")  # images made small and smooth have taught it to want them so
_REVIVED = Cycle(3, 0.02, 0.1, ((1.0, 64),), "bicubic", revive=True)
RECIPES = {
    "tiny": Recipe(network="tiny", cycles=(_GROWING, _SHARP, _REVIVED)),
    "eleven": Recipe(network="eleven", cycles=(Cycle(20, 0.1, 0.15, ((0.4, 48), (1.0, 64)), "bicubic"),)),
}
ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"tiny": networks.Tiny, "eleven": networks.Eleven}


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


def read_classes(members: Members) -> tuple[list[str], list[str]]:
    """WordNet ids in the order of `wnids.txt`, and for each the first of its names."""
    wnids = members["wnids.txt"].decode().split()
    words = dict(line.split("\t") for line in members["words.txt"].decode().splitlines())
    return wnids, [words[wnid].split(",")[0].strip() for wnid in wnids]


def training_split(members: Members) -> Split:
    index = {wnid: i for i, wnid in enumerate(read_classes(members)[0])}
    names = sorted(name for name in members if name.startswith("train/") and name.endswith(".JPEG"))
    return _decode(members, [(name, index[name.split("/")[1]]) for name in names])


def validation_split(members: Members) -> Split:
    index = {wnid: i for i, wnid in enumerate(read_classes(members)[0])}
    rows = [line.split("\t") for line in members["val/val_annotations.txt"].decode().splitlines()]
    return _decode(members, [(f"val/images/{row[0]}", index[row[1]]) for row in rows])


def _decode(members: Members, items: list[tuple[str, int]]) -> Split:
    pixels = [np.asarray(Image.open(io.BytesIO(members[name])).convert("RGB")) for name, _ in items]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()  # (N, 3, 64, 64)
    return Split(images, torch.tensor([label for _, label in items]))


def normalise(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std  # (N, 3, H, W)


def augment(images: Tensor, cycle: Cycle, epoch: int, random: torch.Generator) -> Tensor:
    """Random crops of aspect 3/4..4/3, half of them mirrored, resampled to the size of this epoch of the cycle."""
    size, smallest = cycle.find_size(epoch), cycle.find_smallest_crop(epoch)
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
    crops = F.grid_sample(normalise(images), grid, cycle.interpolation, "reflection", align_corners=False)
    small = crops if size == 64 else F.interpolate(crops, size=(size, size), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def accuracy(network: nn.Module, split: Split) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, in percent, float32, one view of each whole image."""
    network.eval()
    top1 = top5 = 0
    for images, labels in zip(split.images.split(250), split.labels.split(250), strict=True):
        logits = network(normalise(images))  # (N, classes)
        best = logits.topk(min(5, logits.shape[1])).indices  # (N, 5)
        hits = best == labels[:, None]
        top1, top5 = top1 + int(hits[:, 0].sum()), top5 + int(hits.sum())
    return 100 * top1 / len(split.labels), 100 * top5 / len(split.labels)


@torch.no_grad()
def revive_filters(*copies: nn.Module) -> int:
    """Let filters of the first layer that have decayed begin again, and get how many.

    A filter whose norm is below a fifth of the median becomes the mirror image of another, with the statistics of that
    one: what photographs hold to the left they hold to the right as often. The mirror images that are least like any
    filter there is come first. copies: of one network, such as its average; the first one decides for all.
    """
    kernels = copies[0].get_parameter("conv1.weight")  # (F, 3, K, K)
    norms = kernels.flatten(1).norm(dim=1)  # (F,)
    has_decayed = norms < norms.median() / 5
    decayed, used = has_decayed.nonzero()[:, 0], (~has_decayed).nonzero()[:, 0]
    directions = F.normalize(kernels[used].flatten(1), dim=1)  # (U, 3KK)
    mirrored = F.normalize(kernels[used].flip(3).flatten(1), dim=1)  # (U, 3KK)
    likeness = (mirrored @ directions.T).amax(1)  # (U,)
    sources = used[likeness.argsort()[: len(decayed)]]
    for copied in copies:
        state = copied.state_dict()  # views of its values
        state["conv1.weight"][decayed] = state["conv1.weight"][sources].flip(3)
        for name in ("bias", "running_mean", "running_var"):  # its weight is one in all, see Run
            state[f"bn1.{name}"][decayed] = state[f"bn1.{name}"][sources]
    return len(decayed)


def _channels_last(network: nn.Module) -> nn.Module:
    """The memory layout in which convolutions run fastest on a CPU."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _replica(network: nn.Module) -> nn.Module:
    """A network with the same parameters, but gradients and running statistics of its own."""
    replica = copy.deepcopy(network)
    for mine, shared in zip(replica.parameters(), network.parameters(), strict=True):
        mine.data = shared.data
    return replica


class Run:
    """A training run and its checkpoint; `log` has a row for each finished epoch."""

    def __init__(self, recipe: Recipe, folder: Path, classes: int) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.checkpoint = recipe, folder / "checkpoint.pth"
        self.network = _channels_last(ARCHITECTURES[recipe.network](classes))
        self.average = copy.deepcopy(self.network)
        # A filter whose channel is scaled to nothing learns no more and decays to an empty picture. With this scale
        # fixed, nearly all stay in use; `revive_filters` sees to those whose bias has shut them.
        self.network.get_parameter("bn1.weight").requires_grad_(False)
        # Threads that each take a part of the batch, because threads inside an operation wait for each other busily:
        # on a machine with other work, that wastes most of their time.
        self.replicas = [self.network, *(_replica(self.network) for _ in range(recipe.workers - 1))]
        self.workers = ThreadPoolExecutor(recipe.workers, initializer=torch.set_num_threads, initargs=(1,))
        decay = [p for p in self.network.parameters() if p.dim() > 1]
        plain = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=recipe.momentum, nesterov=True)
        self.parts = {"network": self.network, "average": self.average, "optimiser": self.optimiser}
        self.log = resume(self.checkpoint, self.parts, asdict(recipe))

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.log)

    def train_epoch(self, train: Split, val: Split) -> None:
        """One pass over the training images, then the accuracy of the averaged weights, in bfloat16."""
        start, total = time.time(), 0.0
        cycle, epoch = self.recipe.find_cycle(self.epoch)
        if cycle.revive and epoch == 0:
            revive_filters(self.average, self.network)
        random = torch.Generator().manual_seed(self.recipe.seed * 1000 + self.epoch)
        order, steps = torch.randperm(len(train.labels), generator=random), len(train.labels) // self.recipe.batch
        for step, chosen in enumerate(order[: steps * self.recipe.batch].split(self.recipe.batch)):
            self._set_lr(cycle.find_lr(epoch + step / steps))
            total += self._step(train, chosen, random)
            self._average(self.epoch * steps + step)
        with torch.autocast("cpu", torch.bfloat16):
            top1, top5 = accuracy(self.average, val)
        row = {"size": cycle.find_size(epoch), "loss": round(total / steps, 3)}
        self.log.append(row | {"top1": round(top1, 2), "top5": round(top5, 2), "seconds": round(time.time() - start)})
        save_checkpoint(self.checkpoint, self.parts, asdict(self.recipe), self.log)

    def _step(self, train: Split, chosen: Tensor, random: torch.Generator) -> float:
        """One step of the optimiser, each worker on its part of the batch; returns the mean loss."""
        parts = [Split(train.images[part], train.labels[part]) for part in chosen.chunk(self.recipe.workers)]
        seeds = torch.randint(2**31, (len(parts),), generator=random).tolist()
        losses = list(self.workers.map(self._backward, self.replicas, parts, seeds))
        for replica in self.replicas[1:]:
            for mine, other in zip(self.network.parameters(), replica.parameters(), strict=True):
                if mine.grad is not None and other.grad is not None:
                    mine.grad += other.grad
        self.optimiser.step()
        return sum(losses)

    def _backward(self, network: nn.Module, part: Split, seed: int) -> float:
        """Give the network its part's share of the batch's gradient, and return that of the loss."""
        recipe = self.recipe
        images = augment(part.images, *recipe.find_cycle(self.epoch), torch.Generator().manual_seed(seed))
        network.train().zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), part.labels, label_smoothing=recipe.smoothing, reduction="sum")
        loss = loss / recipe.batch
        loss.backward()
        return loss.item()

    def _set_lr(self, lr: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def _average(self, step: int) -> None:
        weight = 1 - min(self.recipe.average, (1 + step) / (10 + step))
        for kept, fresh in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(fresh, weight)
            else:
                kept.copy_(fresh)


def facts(run: Run, labels: list[str], top1: float, top5: float) -> dict[str, Any]:
    """What vizcnn.zoo reads beside the weights."""
    name = run.recipe.network
    return {
        "architecture": type(run.network).__name__,
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
        "reproduce": f"python -m vizcnn.zoo.train_tiny tiny-imagenet-200.tar.xz --network {name} --out runs/{name}",
        "training": run.log,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="Tiny ImageNet as a tar file")
    parser.add_argument("--network", choices=sorted(RECIPES), default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the result")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    members = read_archive(options.archive)
    labels = read_classes(members)[1]
    train, val = training_split(members), validation_split(members)
    del members
    run = Run(RECIPES[options.network], options.out, len(labels))
    while run.epoch < run.recipe.epochs:
        run.train_epoch(train, val)
        print(f"epoch {run.epoch:3d}", *(f" {name} {value}" for name, value in run.log[-1].items()), flush=True)
    ship(run.average, options.out / f"{options.network}.safetensors")
    card = facts(run, labels, *accuracy(run.average.half().float(), val))
    write_card(options.out / f"{options.network}.json", card)


if __name__ == "__main__":
    main()
