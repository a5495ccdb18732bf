"""The last layer that still has places: where maps of what a network looks at are read."""

from __future__ import annotations

from torch import Tensor

from vizcnn.errors import DegenerateResult
from vizcnn.models.layers.axes import find_layers, find_spatial_layers
from vizcnn.models.model import Model


def find_last_spatial_layer(model: Model, image: Tensor) -> str:
    """The last layer, in the order of running, whose output has more than one position. Raises DegenerateResult, also
    for a transformer that makes its only maps before all else: they would not show what it looks at."""
    layers = list(find_spatial_layers(model, image))
    if layers and _are_tokens_behind(model, image, layers[-1]):
        raise DegenerateResult(
            f"the last map (N, C, H, W) in {model.name} is that of {layers[-1]!r}; most of the network lies behind it "
            "and gives tokens, with one axis for rows and columns together, so a map of that layer would not show what "
            f"the network looks at. Use saliency, occlusion or rise, or ask for that layer: layer={layers[-1]!r}"
        )
    if not layers:
        raise DegenerateResult(
            f"no layer of {model.name} gives a map (N, C, H, W) of more than one position, so there is none to make"
        )
    return layers[-1]


def _are_tokens_behind(model: Model, image: Tensor, last: str) -> bool:
    """Whether more layers with weights give tokens behind the layer with the last map than there are up to it."""
    found, modules = find_layers(model, image), model.layers()
    weighted = [name for name in found if any(True for _ in modules[name].parameters(recurse=False))]
    order = {name: number for number, name in enumerate(found)}
    behind = [name for name in weighted if order[name] > order[last] and found[name].axes.places == 1]
    return len(behind) > sum(order[name] <= order[last] for name in weighted)
