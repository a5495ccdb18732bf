"""Layer selection: which layers a scan looks at, and the shapes of their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vizcnn.errors import ImageError, LayerNotFound, TargetError, did_you_mean
from vizcnn.inputs.datasets import Images
from vizcnn.models.layers.axes import find_layers, to_usual_form
from vizcnn.models.layers.dryrun import keep_last, watch_layers
from vizcnn.models.layers.readings import ACTIVATIONS, split_reading
from vizcnn.models.layers.readings import OUTPUT_NAME as OUTPUT_NAME
from vizcnn.models.model import Model
from vizcnn.models.outputs import find_output
from vizcnn.models.terms import describe_activations

Shape = tuple[int, ...]
"""The shape of a layer's output for one image: (C, h, w) or (C,), whatever order its axes have in the network."""


def find_input_size(images: Images, model: Model) -> tuple[int, int]:
    """The height and width of a data set's inputs: those of its tensors, or the model's own for photographs."""
    try:
        first = images.read(0, model.input.reading)[0]
    except ImageError:
        return model.input.size
    return (int(first.shape[-2]), int(first.shape[-1])) if isinstance(first, Tensor) else model.input.size


def select_layers(model: Model, size: tuple[int, int], patterns: Sequence[str] | None) -> dict[str, Shape]:
    """The layers that some names or patterns mean, each with its output's shape, in the order of running.

    size: height and width of an input. patterns: names, or patterns such as `layer?.*`; `output` is the network's own
    output, `relu(layer)` a layer behind its ReLU. By default convolutions, linear layers and the output.

    Raises LayerNotFound, and TargetError for a layer whose output has no channels."""
    shapes, layers = _find_shapes(model, size), model.layers()
    if patterns is None:
        usable = [name for name, shape in shapes.items() if len(shape) in (1, 3)]
        patterns = [name for name in usable if name == OUTPUT_NAME or _has_weights(layers[name])]
    chosen = {name for pattern in patterns for name in _match(model, shapes, pattern)}
    if not chosen:
        raise TargetError(f"no layer of {model.name} is left to look at. Name some, see: vizcnn layers {model.name}")
    for name in chosen:
        shape = shapes[split_reading(name)[1]]
        if len(shape) not in (1, 3):
            given = describe_activations(torch.empty(1, *shape, device="meta"))
            raise TargetError(f"layer {name!r} gives {given} for an image, not (N, C) or (N, C, h, w)")
    return {
        name: shape
        for layer, shape in shapes.items()
        for name in (layer, *(f"{activation}({layer})" for activation in ACTIVATIONS))
        if name in chosen
    }


def _has_weights(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)


def _match(model: Model, shapes: dict[str, Shape], pattern: str) -> list[str]:
    activation, inner = split_reading(pattern)
    if activation and inner != OUTPUT_NAME:
        return [f"{activation}({name})" for name in _match(model, shapes, inner)]
    found = [name for name in shapes if name == pattern] or [n for n in shapes if fnmatchcase(n, pattern)]
    if not found and pattern in model.layers():
        raise TargetError(
            f"layer {pattern!r} of {model.name} did not run, or gives no tensor with one entry per image, or is called "
            f"{OUTPUT_NAME!r} but is not what the network returns"
        )
    if not found:
        raise LayerNotFound(
            f"no layer named {pattern!r} in {model.name}.{did_you_mean(pattern, shapes)} "
            f"See: vizcnn layers {model.name}"
        )
    return found


@torch.no_grad()
def _find_shapes(model: Model, size: tuple[int, int]) -> dict[str, Shape]:
    """The output's shape of every layer that gives a tensor with one entry per image, in the order of last runs."""
    shapes, layers = dict[str, Shape](), find_layers(model, model.grey(size))
    namesake: Any = None

    def read(name: str, output: Any) -> Iterator[Shape]:
        nonlocal namesake
        namesake = output if name == OUTPUT_NAME else namesake
        if isinstance(output, Tensor) and output.dim():
            own = name == OUTPUT_NAME  # the network's own output has its usual form already
            values = output if own else to_usual_form(output, layers[name].axes if name in layers else None)
            if len(values) == 1:
                yield tuple(values.shape[1:])

    see = keep_last(shapes, read)
    with watch_layers(model.network, see):
        answer = model(model.grey(size))
    if namesake is None or namesake is answer:
        see(OUTPUT_NAME, find_output(answer, model.output, 1))
    else:  # a layer and the output would share a name
        shapes.pop(OUTPUT_NAME, None)
    return shapes
