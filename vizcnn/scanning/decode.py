"""Decoding: batches of a data set's images, read and prepared in worker processes beside the network."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vizcnn.dataset import Images
from vizcnn.errors import ImageError, ShapeError
from vizcnn.model import InputContract

_ALONE = 64  # so few images are read before workers have started


@dataclass(frozen=True)
class Batch:
    """Some images that follow each other.

    numbers: int64 (n,), of the images that could be read. inputs: float32 (n, C, H, W) in [0, 1], or None for n = 0.
    labels: the class of each, where known. unreadable: the numbers of the others, each with the reason.
    """

    numbers: Tensor
    inputs: Tensor | None
    labels: tuple[str | None, ...]
    unreadable: tuple[tuple[int, str], ...]


class _Decoding(Dataset[Batch | ShapeError]):
    """Indexed by the numbers of a whole batch, so that one worker makes it."""

    def __init__(self, images: Images, contract: InputContract, size: tuple[int, int]) -> None:
        self.images, self.contract, self.size = images, contract, size

    def __getitem__(self, numbers: Sequence[int]) -> Batch | ShapeError:
        try:
            return self._batch(numbers)
        except ShapeError as error:  # raised in a worker it would arrive with the worker's traceback for a message
            return error

    def _batch(self, numbers: Sequence[int]) -> Batch:
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
            torch.stack(inputs) if inputs else None,
            tuple(labels),
            tuple(unreadable),
        )

    def _read(self, number: int) -> tuple[Tensor, str | None]:
        image, label = self.images.read(number)
        inputs = _checked(image, self.contract) if isinstance(image, Tensor) else self.contract.prepared(image)[0]
        if inputs.shape[1:] != self.size:
            (h, w), (height, width) = inputs.shape[1:], self.size
            raise ShapeError(
                f"inputs of one scan share a size, got {h} x {w} (image {number}) beside {height} x {width}"
            )
        return inputs, label


def _checked(image: Tensor, contract: InputContract) -> Tensor:
    """An input that a person made, seen to be one. Raises ShapeError, and ImageError for NaN and infinity."""
    if image.dim() != 3 or image.shape[0] != contract.channels:
        raise ShapeError(f"an input tensor is ({contract.channels}, H, W), got {tuple(image.shape)}")
    values = image.detach().cpu().float()
    if not values.isfinite().all():
        raise ImageError("the tensor holds NaN or infinity")
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):
        raise ShapeError(
            f"an input tensor holds values in [0, 1], got {values.min():g}..{values.max():g}. Leave out normalisation: "
            "the model does it"
        )
    return values


def cut(numbers: range, size: int) -> list[range]:
    """Numbers in parts of a size; the last may be smaller."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def decoded(
    images: Images, contract: InputContract, size: tuple[int, int], batches: Sequence[range], loaders: int | None
) -> Generator[Batch]:
    """The batches of these numbers, in their order. size: height and width of the inputs. loaders: processes that
    read, which end when the generator is closed; None for as many as suit. Raises ShapeError."""
    count = _loaders(sum(map(len, batches))) if loaders is None else loaders
    decoding = _Decoding(images, contract, size)
    loader = iter(DataLoader(decoding, None, sampler=batches, num_workers=count, worker_init_fn=_in_background))
    try:
        for batch in loader:
            if isinstance(batch, ShapeError):
                raise batch
            yield batch
    finally:
        _end(loader)


def _end(loader: Any) -> None:
    """End the workers now: by itself torch does so when the loader is collected, whenever that is."""
    if hasattr(loader, "_shutdown_workers"):  # not where the main process reads
        loader._shutdown_workers()


def _in_background(_worker: int) -> None:
    """Ctrl-C is answered by the main process, which ends the workers; a connection that breaks then is no news."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None


def _loaders(images: int) -> int:
    return 0 if images <= _ALONE else max(1, min(8, (os.cpu_count() or 1) // 2))
