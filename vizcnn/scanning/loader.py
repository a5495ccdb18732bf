"""Loader: batches of a data set's images, read and prepared for the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vizcnn.errors import ImageError, ShapeError
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.tensors import check_unit_range
from vizcnn.models.model import InputContract


@dataclass(frozen=True)
class Batch:
    """Inputs for the network, made of images that follow each other in the data set.

    numbers: int64 (n,), the numbers of the images that could be read. inputs: float32 (n, C, H, W) in [0, 1], or None
        for n = 0. labels: the class of each, None where unknown.
    unreadable: the numbers of the images that could not be read, each with the reason.
    """

    numbers: Tensor
    inputs: Tensor | None
    labels: tuple[str | None, ...]
    unreadable: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Loader:
    """Reads batches of a data set's images and prepares them as inputs of one size (height, width)."""

    images: Images
    contract: InputContract
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an input, (C, H, W)."""
        return (self.contract.channels, *self.size)

    def load(self, numbers: Sequence[int], buffer: Tensor | None = None) -> Batch:
        """The batch of the images with these numbers. buffer: float32 (at least so many, C, H, W), for the inputs.

        Raises ShapeError."""
        good, inputs, labels, unreadable = [], [], [], []
        for number in numbers:
            try:
                one, label = self._read(number)
            except ImageError as error:
                reason = str(error).encode("utf-8", "replace").decode()  # a file's name need not be text
                unreadable.append((number, reason))
                continue
            good.append(number)
            inputs.append(one)
            labels.append(label)
        return Batch(
            torch.tensor(good, dtype=torch.int64),
            torch.stack(inputs, out=None if buffer is None else buffer[: len(inputs)]) if inputs else None,
            tuple(labels),
            tuple(unreadable),
        )

    def _read(self, number: int) -> tuple[Tensor, str | None]:
        image, label = self.images.read(number)
        inputs = _check_input(image, self.contract) if isinstance(image, Tensor) else self.contract.prepared(image)[0]
        if inputs.shape[1:] != self.size:
            (h, w), (height, width) = inputs.shape[1:], self.size
            raise ShapeError(
                f"inputs of one scan share a size, got {h} x {w} (image {number}) beside {height} x {width}"
            )
        return inputs, label


def _check_input(image: Tensor, contract: InputContract) -> Tensor:
    """A tensor of the data set as an input, if it is one. Raises ShapeError, and ImageError for NaN and infinity."""
    if image.dim() != 3 or image.shape[0] != contract.channels:
        raise ShapeError(f"an input tensor is ({contract.channels}, H, W), got {tuple(image.shape)}")
    values = image.detach().cpu().float()
    if not values.isfinite().all():
        raise ImageError("the tensor holds NaN or infinity")
    check_unit_range(values)
    return values


def split(numbers: range, size: int) -> list[range]:
    """Consecutive parts of a range, each of a size; the last may be smaller."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
