"""Train the bundled networks `lecture` and `simple` on the MNIST digits, from the official files to the shipped ones.

    python -m vizcnn.zoo.train_mnist lecture path/to/mnist --out runs/lecture
    python -m vizcnn.zoo.train_mnist simple path/to/mnist --out runs/simple --epochs 2 --keep 50

Writes the weights as trained and as initialised, and the card. Stopped at any moment, the same command goes on from
the last finished epoch. Recipe: Adam with a cosine learning rate, digits shifted by up to two pixels, averaged weights.
With --keep the weights that are being trained, before they are averaged, are kept too, each as a network by itself:

    vizcnn filters -m runs/simple/simple-00938.safetensors --compare 'runs/simple/simple-*.safetensors' -o film.gif
"""

from __future__ import annotations

import argparse
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizcnn.models.sources import bundled_networks as networks
from vizcnn.zoo.shipping import resume, save_checkpoint, save_own, ship, write_card

MEAN, STD = 0.1307, 0.3081
ARCHITECTURES: dict[str, type[nn.Module]] = {"lecture": networks.Lecture, "simple": networks.Simple}
MAKER = "vizcnn.zoo.train_mnist"
BATCH, PEAK_LR, AVERAGE, SHIFT = 128, 2e-3, 0.998, 2


def read_digits(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] and labels (N,) of `train` or `t10k`."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    )


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent."""
    network.eval()
    with torch.inference_mode():
        found = torch.cat([network((batch - MEAN) / STD).argmax(1) for batch in images.split(100)])
    return 100 * (found == labels).float().mean().item()


def shift(images: Tensor, random: torch.Generator) -> Tensor:
    """Each digit moved by up to SHIFT px in both directions; what leaves the image is lost."""
    n, _, side, _ = images.shape
    padded = F.pad(images, [SHIFT] * 4)[:, 0]  # (N, side + 2 SHIFT, side + 2 SHIFT)
    offsets = torch.randint(0, 2 * SHIFT + 1, (2, n, 1), generator=random)
    rows, columns = offsets + torch.arange(side)  # (N, side) each
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]  # (N, 1, side, side)


class Run:
    """A training run; `initial` is the network before its first step.

    keep: after how many steps each the weights are kept, in a file of their own; 0 for never."""

    def __init__(self, name: str, folder: Path, epochs: int, keep: int = 0) -> None:
        torch.manual_seed(0)
        self.name, self.folder, self.epochs, self.keep = name, folder, epochs, keep
        self.checkpoint = folder / "checkpoint.pth"
        self.network = ARCHITECTURES[name]()
        self.initial, self.average = ARCHITECTURES[name](), ARCHITECTURES[name]()
        self.initial.load_state_dict(self.network.state_dict())
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.Adam(self.network.parameters(), weight_decay=1e-5)
        self.recipe = {"network": name, "epochs": epochs}
        self.parts = {"network": self.network, "average": self.average, "optimiser": self.optimiser}
        self.log = resume(self.checkpoint, self.parts, self.recipe)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.log)

    def train_epoch(self, images: Tensor, labels: Tensor) -> None:
        random = torch.Generator().manual_seed(self.epoch)
        chosen = torch.randperm(len(labels), generator=random).split(BATCH)
        self.network.train()
        total = 0.0
        for step, batch in enumerate(chosen):
            self._keep_snapshot(self.epoch * len(chosen) + step, self.epochs * len(chosen))
            done = (self.epoch + step / len(chosen)) / self.epochs
            self.optimiser.param_groups[0]["lr"] = PEAK_LR * min(1.0, done * 20) * 0.5 * (1 + math.cos(math.pi * done))
            outputs = self.network((shift(images[batch], random) - MEAN) / STD)
            self.optimiser.zero_grad()
            loss = F.cross_entropy(outputs, labels[batch], label_smoothing=0.05)
            loss.backward()
            self.optimiser.step()
            self._average()
            total += loss.item()
        self._keep_snapshot((self.epoch + 1) * len(chosen), self.epochs * len(chosen))
        self.log.append({"loss": total / len(chosen)})
        save_checkpoint(self.checkpoint, self.parts, self.recipe, self.log)

    def _keep_snapshot(self, step: int, last: int) -> None:
        """Write the weights as they are after so many steps, if it is time."""
        if self.keep and (step % self.keep == 0 or step == last):
            file = self.folder / f"{self.name}-{step:05}.safetensors"
            save_own(self.network, file, {**describe(self.name), "maker": MAKER, "step": step})

    @torch.no_grad()
    def _average(self) -> None:
        for kept, fresh in zip(self.average.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(fresh, 1 - AVERAGE)


def describe(name: str) -> dict[str, Any]:
    """What a file of weights says of itself."""
    return {
        "network": name,
        "input": {"size": [28, 28], "channels": 1, "mean": [MEAN], "std": [STD], "resize": None},
        "labels": [str(digit) for digit in range(10)],
    }


def facts(name: str, top1: float) -> dict[str, Any]:
    """What vizcnn.zoo reads beside the weights."""
    own = describe(name)
    return {
        "architecture": ARCHITECTURES[name].__name__,
        "input": own["input"],
        "labels": own["labels"],
        "accuracy": {"data": "the 10,000 MNIST test digits", "top1": round(top1, 2)},
        "data": "MNIST (LeCun, Cortes, Burges), 60,000 training digits",
        "licence": "MIT, like vizcnn; the digits are CC BY-SA 3.0",
        "reproduce": f"python -m vizcnn.zoo.train_mnist {name} path/to/mnist --out runs/{name}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(ARCHITECTURES))
    parser.add_argument("folder", type=Path, help="folder of the four official idx files, gzipped")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the shipped files")
    parser.add_argument("--epochs", type=int, default=15, help="how often all digits are seen (%(default)s)")
    parser.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="EVERY",
        help="keep the weights after every so many steps, of which an epoch has 469, and after the last",
    )
    options = parser.parse_args()
    if options.keep < 0:
        parser.error(f"--keep is a number of steps, 0 for never, got {options.keep}")
    options.out.mkdir(parents=True, exist_ok=True)
    train, test = read_digits(options.folder, "train"), read_digits(options.folder, "t10k")
    run = Run(options.network, options.out, options.epochs, options.keep)
    while run.epoch < run.epochs:
        run.train_epoch(*train)
        print(f"epoch {run.epoch:3d}  top-1 {accuracy(run.average, *test):.2f}", flush=True)
    ship(run.average, options.out / f"{options.network}.safetensors")
    ship(run.initial, options.out / f"{options.network}.initial.safetensors")
    write_card(
        options.out / f"{options.network}.json", facts(options.network, accuracy(run.average.half().float(), *test))
    )


if __name__ == "__main__":
    main()
