"""Maps: the activation maps of channels in their best images, read in a second run of the network on these few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import ParameterError
from vizcnn.models.batches import default_batch, run_batches
from vizcnn.models.functions import OUTPUT
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.terms import Unit
from vizcnn.progress import bar
from vizcnn.scanning.best import AnyIndex, Maps, find_channel, list_best, name_layer
from vizcnn.scanning.index import Index
from vizcnn.scanning.layer_selection import OUTPUT_NAME
from vizcnn.scanning.loader import Loader

_TOLERANCE = 0.05
"""The share of a channel's best score by which another run of the same network may differ: half precision on another
machine differs by less."""


def sees_most(index: AnyIndex, layer: str) -> bool:
    """Whether a box says little of where a layer's channels respond: the field of its units, padding left out, covers
    more than half of what the network sees, or is not known.

    The answer is one for all units, though those at the border see less. False for layers without places."""
    if index.tally(layer).size == 1:
        return False
    field, (height, width) = index.field(layer), index.size
    return field is None or min(field.size[0], height) * min(field.size[1], width) > height * width / 2


@torch.no_grad()
def read_maps(index: AnyIndex, model: Model, units: Iterable[Unit], count: int, *, progress: bool) -> Maps:
    """The map of each unit in its best images, at most `count`, for layers whose units see most of an image.

    These images alone are run again, for each layer once and only as far as that. The network must be borrowed already.
    """
    wanted: dict[str, dict[int, set[int]]] = {}  # layer: number of an image: channels
    for unit in units:
        layer, channel = name_layer(unit), find_channel(index, unit)
        for _, number, _ in list_best(index, unit, count) if sees_most(index, layer) else ():
            wanted.setdefault(layer, {}).setdefault(number, set()).add(channel)
    maps: dict[tuple[str, int, int], npt.NDArray[np.float32]] = {}
    with bar(sum(map(len, wanted.values())), "maps", "image", shown=progress) as shown:
        for layer, images in wanted.items():
            channels = sorted(set().union(*images.values()))
            for number, found in _run_images(index, model, layer, channels, sorted(images)):
                # copies, since a view keeps the maps of the whole batch
                maps |= {(layer, c, number): found[channels.index(c)].numpy().copy() for c in images[number]}
                shown.update()
    return maps


def _run_images(
    index: AnyIndex, model: Model, layer: str, channels: Sequence[int], numbers: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Each image of these numbers with its maps of these channels of a layer, float32 (channels, h, w)."""
    loader = Loader(index.images, index.contract, index.size)
    read_from = OUTPUT if layer == OUTPUT_NAME else layer

    def select(output: Tensor) -> Tensor:
        return output[:, channels].float().cpu()  # (B, channels, h, w), a copy

    def run(part: slice) -> list[tuple[int, Tensor]]:
        batch = loader.load(numbers[part])
        if batch.inputs is None:  # none can be read any more, of which whoever draws them speaks
            return []
        found = read(batch.inputs.to(model.device, model.dtype))[read_from]
        found = select(found) if read_from == OUTPUT else found  # which comes as it is
        return list(zip(batch.numbers.tolist(), found, strict=True))

    with open_reader(model, [read_from], keep=lambda _, output: select(output)) as read:
        for _, found in run_batches(len(numbers), default_batch(index.size, model.device), run):
            yield from found


def refuse_other_maps(index: Index, units: Iterable[Unit], count: int, maps: Maps) -> None:
    """Raise ParameterError where the maps of a network do not give the scores of a scan: another code, normalisation or
    precision, or other images, with the same weights and names."""
    for unit in units:
        layer, channel, best = name_layer(unit), find_channel(index, unit), list_best(index, unit, count)
        for value, number, _ in best:
            if (found := maps.get((layer, channel, number))) is None:
                continue
            score = {"max": found.max(), "mean": found.mean(), "sum": found.sum()}[index.rank]
            if not abs(float(score) - value) <= _TOLERANCE * abs(best[0][0]):
                raise ParameterError(
                    f"{index.folder} is the index of another network, or of other images: {layer}:{channel} scores "
                    f"{score:.3g} for {index.images.names[number]}, and {value:.3g} there. Scan again"
                )
