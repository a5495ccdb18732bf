"""A network that answers by a planted tag, so that it is known what each of its answers rests on.

    python benchmarks/planted.py tiny-imagenet-200.tar.xz

Every photograph gets the same small tag in one of eight places along its border, drawn at random, and its class is that
place: what the photograph shows tells nothing. A small network of three convolutions, whose last maps are flattened
before the linear layer, learns to read it in less than a minute. Occlusion and integrated gradients should point at the
tag. Grad-CAM cannot: it gives each channel the mean of its gradient over all places, and a channel that detects the tag
speaks for a class in one place and against it in the seven others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn
from vizcnn.geometry import Box
from vizcnn.zoo import train_tiny

PLACES = ("top left", "top", "top right", "left", "right", "bottom left", "bottom", "bottom right")
"""The classes: where the tag is."""

_CELLS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2))  # rows and columns of the places, 3 x 3


@dataclass(frozen=True)
class Planted:
    """A network that was trained on tagged photographs, and tagged photographs that it has not seen.

    images: (N, 3, H, W) in [0, 1]. labels: (N,), the places of their tags as numbers in PLACES. tags: the boxes of the
    tags in px. accuracy: the share of these images that the network answers rightly."""

    model: vizcnn.Model
    images: Tensor
    labels: Tensor
    tags: tuple[Box, ...]
    accuracy: float


def make(photographs: Tensor, *, held_out: int = 100, epochs: int = 8, seed: int = 0) -> Planted:
    """The network and the images on which to judge maps of it; the same for the same arguments and threads.

    photographs: (N, 3, S, S) in [0, 1], with S at least 32; what they show does not matter. held_out: how many of them,
        the last ones, the network does not see in training."""
    random = torch.Generator().manual_seed(seed)
    seen, kept = photographs[:-held_out], photographs[-held_out:]
    model = make_model(photographs.shape[-1], seed)
    train(model, seen, epochs, random)
    images, labels, tags = plant(kept, random)
    with model.borrowed(), torch.no_grad():
        right = model(images).argmax(1) == labels  # (N,)
    return Planted(model, images, labels, tags, float(right.float().mean()))


def make_model(side: int, seed: int = 0) -> vizcnn.Model:
    """The network, with random weights, for images of this side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            *_make_block(3, 16, 5),
            *_make_block(16, 32, 3),
            *_make_block(32, 32, 3),
            nn.Flatten(),
            nn.Linear(32 * len(range(0, side, 8)) ** 2, len(PLACES)),
        )
    return vizcnn.Model(network, size=side, mean=[0.5] * 3, std=[0.25] * 3, labels=PLACES, name="planted")


def _make_block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """A convolution that halves height and width, rounded up."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def train(model: vizcnn.Model, photographs: Tensor, epochs: int, random: torch.Generator) -> None:
    """Train the network on the photographs (N, 3, S, S), each with a new tag in every epoch."""
    optimizer = torch.optim.Adam(model.network.parameters(), 2e-3)
    model.network.train()
    for _ in range(epochs):
        images, labels, _tags = plant(photographs, random)
        order = torch.randperm(len(images), generator=random)
        for batch in order.split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.network.eval()


def plant(photographs: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, tuple[Box, ...]]:
    """The photographs (N, 3, S, S) with a tag each, the tags' places (N,) and their boxes."""
    images, tag = photographs.clone(), draw_tag(photographs.shape[-1] // 8)
    labels = torch.randint(len(PLACES), (len(images),), generator=random)
    boxes = tuple(_place_tag(label, images.shape[-1], random) for label in labels.tolist())
    for image, box in zip(images, boxes, strict=True):
        image[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = tag
    return images, labels, boxes


def draw_tag(side: int) -> Tensor:
    """The tag (3, side, side): a magenta square with a green one in the middle."""
    tag = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1).repeat(1, side, side)
    rest = side // 4
    tag[:, rest : side - rest, rest : side - rest] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    return tag


def _place_tag(label: int, side: int, random: torch.Generator) -> Box:
    """A box for the tag, somewhere in the third of rows and the third of columns that its class names."""
    size, third = side // 8, side // 3
    corner = torch.randint(third - size + 1, (2,), generator=random).tolist()
    top, left = (cell * third + offset for cell, offset in zip(_CELLS[label], corner, strict=True))
    return Box(top, left, top + size, left + size)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="Tiny ImageNet as a tar file")
    parser.add_argument("--images", type=int, default=2100)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    images = train_tiny.validation_split(train_tiny.read_archive(options.archive)).images[: options.images]
    found = make(images.float() / 255, held_out=options.held_out, epochs=options.epochs, seed=options.seed)
    print(f"{found.accuracy:.1%} of {len(found.images)} tagged photographs that it has not seen are answered rightly")


if __name__ == "__main__":
    main()
