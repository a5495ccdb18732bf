"""Features: a layer's activations for each image of a data set, one vector per image, from one pass."""

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
from vizcnn.models.layers.capture import choose_batch, open_reader
from vizcnn.models.model import Model
from vizcnn.models.outputs import require_output
from vizcnn.models.targets import OUTPUT
from vizcnn.progress import bar
from vizcnn.scanning.layer_selection import OUTPUT_NAME, find_input_size, select_layers
from vizcnn.scanning.loader import Batch, split
from vizcnn.scanning.loader_processes import load_batches

Read = Callable[[Tensor], Tensor]
"""From inputs (B, C, H, W) to features, float32 (B, F)."""


@dataclass(frozen=True)
class Features:
    """The features of N images.

    layer: where they were taken, in words. vectors: float32 (N, F), all finite.
    numbers: int64 (N,), of the images in the data set, ascending. labels: the class of each, None if unknown.
    unreadable: the numbers of images that could not be read, each with the reason. unusable: the numbers of images
        whose features hold NaN or infinity.
    """

    layer: str
    vectors: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]
    labels: tuple[str | None, ...]
    unreadable: tuple[tuple[int, str], ...]
    unusable: tuple[int, ...]


def compute_features(model: Model, images: Images, layer: str | None, progress: bool) -> Features:
    """The features of all images; maps are averaged over their places. The network must be borrowed already.

    layer: a layer's name, or `output`. None: the input of the last convolution or linear layer, the bottleneck.

    Raises ImageError where no image can be read, NonFiniteResult where all features hold NaN or infinity,
    DegenerateResult for a network that is random or mixes the images of a batch, LayerNotFound, TargetError."""
    size = find_input_size(images, model)
    name, enters = _choose_layer(model, size, layer)
    where = f"what enters {name}" if enters else name
    batches, parts = split(range(len(images)), choose_batch(model, size)), list[tuple[Batch, Tensor]]()
    with (
        _open_feature_reader(model, name, enters) as read,
        closing(load_batches(images, model.input, size, batches, None)) as each,
        bar(len(images), "features", "image", shown=progress) as shown,
    ):
        checked = False
        for numbers, batch in zip(batches, each, strict=True):
            found = torch.empty(0) if batch.inputs is None else read(batch.inputs)
            if not checked and batch.inputs is not None:
                checked = _check_alone(where, batch.inputs, found, read, model.dtype)
            parts.append((Batch(batch.numbers, None, batch.labels, batch.unreadable), found))
            shown.update(len(numbers))
    return _join(images, where, parts)


def check_features(model: Model, image: Tensor, layer: str | None) -> Features:
    """The features of two images: one (1, C, H, W), and noise. Raises what `compute_features` raises for any images, as
    far as these tell."""
    name, enters = _choose_layer(model, (image.shape[2], image.shape[3]), layer)
    where = f"what enters {name}" if enters else name
    with _open_feature_reader(model, name, enters) as read:
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(271828)).to(image)
        both = torch.cat([image, noise])
        batch = choose_batch(model, (image.shape[2], image.shape[3]))
        found = torch.cat([read(part) for part in both.split(batch)])
        if not _check_alone(where, both, found, read, model.dtype):
            raise NonFiniteResult(f"the features of all images at {where} hold NaN or infinity. Check the weights")
    return Features(where, found.numpy(), np.arange(2), (None, None), (), ())


def _choose_layer(model: Model, size: tuple[int, int], layer: str | None) -> tuple[str, bool]:
    """The name of the layer to watch, and whether its input is meant instead of its output."""
    shapes = select_layers(model, size, None if layer is None else [layer])
    if layer is None:
        weighted = [name for name in shapes if name != OUTPUT_NAME]
        return (weighted[-1], True) if weighted else (OUTPUT_NAME, False)
    if len(shapes) > 1:
        raise ParameterError(f"layer must be one layer, got {layer!r}, which is {len(shapes)}: {', '.join(shapes)}")
    return next(iter(shapes)), False


@contextmanager
def _open_feature_reader(model: Model, name: str, enters: bool) -> Iterator[Read]:
    """While the context is open: a function from inputs to the layer's features; it runs the network only that far.

    enters: whether the layer's input is meant."""
    entered: dict[str, Tensor] = {}

    def enter(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = next(iter((*inputs, *named.values())))
        if isinstance(module, torch.nn.Linear) and isinstance(value, Tensor):
            value = value.movedim(-1, 1) if value.dim() == 4 else value  # a dense layer has its channels last
        entered[name] = _pool(name, value)

    key = OUTPUT if name == OUTPUT_NAME else name
    hook = model.layer(name).register_forward_pre_hook(enter, with_kwargs=True) if enters else None

    def read(inputs: Tensor) -> Tensor:
        seen = run(inputs.to(model.device, model.dtype))
        found = entered[name] if enters else _pool(name, require_output(seen[key])) if key == OUTPUT else seen[key]
        if len(found) != len(inputs):
            raise TargetError(f"layer {name!r} gives {len(found)} vectors for {len(inputs)} images")
        return found.float().cpu()

    try:
        with torch.no_grad(), open_reader(model, [key], keep=_keep_nothing if enters else _pool) as run:
            yield read
    finally:
        if hook:
            hook.remove()


def _keep_nothing(_name: str, _output: Tensor) -> None:
    """Keep nothing of the output of a layer whose input is meant."""


def _pool(name: str, value: Any) -> Tensor:
    """Features (B, F) from activations (B, F), or (B, F, h, w) averaged over places; a copy. Raises TargetError."""
    if not isinstance(value, Tensor) or value.dim() not in (2, 4):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(f"features are (N, C) or (N, C, h, w), got {got} at {name!r}. Choose another layer")
    return value.detach().float().mean((2, 3)) if value.dim() == 4 else value.detach().clone()


def _check_alone(where: str, inputs: Tensor, found: Tensor, read: Read, dtype: torch.dtype) -> bool:
    """Whether the check could be made that an image has the same features alone as in its batch.

    False if no image of the batch has finite features. Raises DegenerateResult if the features differ."""
    usable = found.isfinite().all(1).nonzero()
    if not len(usable):
        return False
    i = int(usable[0])
    check_deterministic(where, read(inputs[i : i + 1])[0], found[i], dtype)
    return True


def _join(images: Images, where: str, parts: list[tuple[Batch, Tensor]]) -> Features:
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
