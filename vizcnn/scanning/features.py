"""Features: what a layer says of each image of a data set, one vector per image, gathered in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import ImageError, NonFiniteResult, ParameterError, TargetError
from vizcnn.inputs.datasets import Images
from vizcnn.models.determinism import check_deterministic
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.scoring import default_batch
from vizcnn.models.targets import OUTPUT
from vizcnn.progress import bar
from vizcnn.scanning.decode import Batch, cut
from vizcnn.scanning.readers import decoded
from vizcnn.scanning.survey import OUTPUT_NAME, size_of, surveyed

Read = Callable[[Tensor], Tensor]
"""From inputs (B, C, H, W) to features, float32 (B, F)."""


@dataclass(frozen=True)
class Features:
    """The features of N images.

    layer: where they were taken, in words. vectors: float32 (N, F), all finite.
    numbers: int64 (N,), of the images in the data set, ascending. labels: the class of each, where known.
    unreadable: numbers of images that could not be read, each with the reason. unusable: numbers of those whose
    features hold NaN or infinity.
    """

    layer: str
    vectors: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]
    labels: tuple[str | None, ...]
    unreadable: tuple[tuple[int, str], ...]
    unusable: tuple[int, ...]


def features_in(model: Model, images: Images, layer: str | None, progress: bool) -> Features:
    """The features of all images, maps averaged over their places. The network must be lent already.

    layer: a layer's name, or `output`. None: what enters the last convolution or linear layer, the bottleneck.

    Raises ImageError where no image can be read, NonFiniteResult where all features hold NaN or infinity,
    DegenerateResult for a network that is random or mixes the images of a batch, LayerNotFound, TargetError."""
    size = size_of(images, model)
    name, enters = _place(model, size, layer)
    where = f"what enters {name}" if enters else name
    batches, parts = cut(range(len(images)), default_batch(size)), list[tuple[Batch, Tensor]]()
    with (
        _reader(model, name, enters) as read,
        closing(decoded(images, model.input, size, batches, None)) as each,
        bar(len(images), "features", "image", shown=progress) as shown,
    ):
        settled = False
        for numbers, batch in zip(batches, each, strict=True):
            found = torch.empty(0) if batch.inputs is None else read(batch.inputs)
            if not settled and batch.inputs is not None:
                settled = _settled(where, batch.inputs, found, read, model.dtype)
            parts.append((Batch(batch.numbers, None, batch.labels, batch.unreadable), found))
            shown.update(len(numbers))
    return _joined(images, where, parts)


def _place(model: Model, size: tuple[int, int], layer: str | None) -> tuple[str, bool]:
    """The layer to watch, and whether its input is meant."""
    shapes = surveyed(model, size, None if layer is None else [layer])
    if layer is None:
        weighted = [name for name in shapes if name != OUTPUT_NAME]
        return (weighted[-1], True) if weighted else (OUTPUT_NAME, False)
    if len(shapes) > 1:
        raise ParameterError(f"layer must be one layer, got {layer!r}, which is {len(shapes)}: {', '.join(shapes)}")
    return next(iter(shapes)), False


@contextmanager
def _reader(model: Model, name: str, enters: bool) -> Iterator[Read]:
    """While the context is open: a function that runs the network as far as the layer."""
    entered: dict[str, Tensor] = {}

    def enter(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = next(iter((*inputs, *named.values())))
        if isinstance(module, torch.nn.Linear) and isinstance(value, Tensor):
            value = value.movedim(-1, 1) if value.dim() == 4 else value  # a dense layer has its channels last
        entered[name] = _pooled(name, value)

    key = OUTPUT if name == OUTPUT_NAME else name
    hook = model.layer(name).register_forward_pre_hook(enter, with_kwargs=True) if enters else None

    def read(inputs: Tensor) -> Tensor:
        seen = run(inputs.to(model.device, model.dtype))
        found = entered[name] if enters else _pooled(name, seen[key]) if key == OUTPUT else seen[key]
        if len(found) != len(inputs):
            raise TargetError(f"layer {name!r} gives {len(found)} vectors for {len(inputs)} images")
        return found.float().cpu()

    try:
        with torch.no_grad(), open_reader(model, [key], keep=_nothing if enters else _pooled) as run:
            yield read
    finally:
        if hook:
            hook.remove()


def _nothing(_name: str, _output: Tensor) -> None:
    """What is kept of a layer whose input is meant."""


def _pooled(name: str, value: Any) -> Tensor:
    """Activations (B, F), or (B, F, h, w) averaged over places, as a tensor of their own (B, F)."""
    if not isinstance(value, Tensor) or value.dim() not in (2, 4):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(f"features are (N, C) or (N, C, h, w), got {got} at {name!r}. Choose another layer")
    return value.detach().float().mean((2, 3)) if value.dim() == 4 else value.detach().clone()


def _settled(where: str, inputs: Tensor, found: Tensor, read: Read, dtype: torch.dtype) -> bool:
    """Whether an image was seen to have the same features alone as in its batch; False where none could be asked."""
    usable = found.isfinite().all(1).nonzero()
    if not len(usable):
        return False
    i = int(usable[0])
    check_deterministic(where, read(inputs[i : i + 1])[0], found[i], dtype)
    return True


def _joined(images: Images, where: str, parts: list[tuple[Batch, Tensor]]) -> Features:
    unreadable = tuple(each for batch, _ in parts for each in batch.unreadable)
    if len(unreadable) == len(images):
        raise ImageError(f"none of the images of {images.where} can be read: {unreadable[0][1]}")
    vectors = torch.cat([found for _, found in parts if len(found)])  # (N, F)
    numbers = torch.cat([batch.numbers for batch, _ in parts])
    labels = [label for batch, _ in parts for label in batch.labels]
    usable = vectors.isfinite().all(1)
    if not usable.any():
        raise NonFiniteResult(f"the features of all images at {where} hold NaN or infinity. Check the weights")
    kept = tuple(label for label, good in zip(labels, usable.tolist(), strict=True) if good)
    bad = tuple(numbers[~usable].tolist())
    return Features(where, vectors[usable].numpy(), numbers[usable].numpy(), kept, unreadable, bad)
