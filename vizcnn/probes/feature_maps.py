"""Feature maps: what the layers of a network make of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, NonFiniteResult, ParameterError, TargetError
from vizcnn.geometry import Box
from vizcnn.models.layers.axes import find_spatial_layers
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import describe_activations
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.receptive import ReceptiveField, trace_fields
from vizcnn.results import ImageGrid, Mark, Panel, Row, Scene

Array = npt.NDArray[np.float32]
ChannelsByLayer = Mapping[str, Sequence[int]]
Fields = Mapping[str, ReceptiveField | None]

_MOST_LAYERS = 5


class FeatureMaps(Probe[ImageGrid]):
    """What do the layers of the network make of this image?

    Each tile is the output of one channel of a layer. The channels with the largest value anywhere come first; a tile's
    title is `:CHANNEL@Y,X`, the unit with that value, with Y and X counted in positions of the layer, and the value.
    All tiles of a layer share one scale, over all images of the call. The box on the photograph, in the colour of the
    layer's square, is what the layer's strongest unit can see: nothing outside can change its value.

    Nothing is explained about the answer, so there is no target. A layer that runs several times shows its last run.

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.1.
    Raises LayerNotFound, ParameterError, TargetError (a layer that gives no maps or does not run), NonFiniteResult,
    DegenerateResult (a network that is random in eval mode).
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    needs_target: ClassVar[bool] = False

    layers: tuple[str, ...] | None = param(
        None,
        "Which layers, separated by commas; LAYER:CHANNEL asks for that channel of it. By default, of each size of map "
        "the last layer that gives it, at most five.",
        parse=parse_names,
    )
    channels: int = param(12, "How many channels of a layer to show, the strongest.", min=1)

    def check(self) -> None:
        if self.layers is not None:
            _parse_layers(self.layers)

    def compute(self, subject: Subject) -> ImageGrid:
        layers = _parse_layers(self.layers or _choose_layers(subject.model, subject.inputs[:1]))
        by_image = [self._read_maps(subject.model, image[None], layers) for image in subject.inputs]
        fields = trace_fields(subject.model, (int(subject.inputs.shape[2]), int(subject.inputs.shape[3])))
        limits = {layer: _find_limits([maps[layer] for maps in by_image]) for layer in layers}
        rows, findings = [], []
        for i, maps in enumerate(by_image):
            boxes = {layer: _find_box(subject, i, one, fields.get(layer)) for layer, one in maps.items()}
            marks = tuple(Mark(box, maps[layer].name_unit(0)) if box else None for layer, box in boxes.items())
            panels = tuple(_make_panel(i, one, limits[layer]) for layer, one in maps.items())
            rows.append(Row(panels, Scene(subject.photos[i], subject.seen[i], marks)))
            findings += [_describe(subject, i, one, boxes[layer]) for layer, one in maps.items()]
        provenance = subject.provenance(layers=",".join(layers), channels=self.channels)
        return ImageGrid(provenance, tuple(rows), (*findings, *_describe_missing_boxes(layers, fields)))

    @torch.no_grad()
    def _read_maps(self, model: Model, image: Tensor, layers: ChannelsByLayer) -> dict[str, LayerMaps]:
        """The maps to show of each layer for one image (1, C, H, W)."""
        once, again = (read_activations(model, image, layers) for _ in range(2))
        return {
            layer: _select_strongest(layer, _check_maps(layer, once[layer], again[layer]), channels, self.channels)
            for layer, channels in layers.items()
        }


@dataclass(frozen=True)
class LayerMaps:
    """The maps to show of one layer for one image, strongest first.

    channels: their numbers, (K,). values: float32 (K, h, w). of: how many channels the layer has.
    """

    layer: str
    channels: tuple[int, ...]
    values: Array
    of: int

    def find_peak(self, k: int) -> tuple[int, int]:
        """Row and column of the k-th map's largest value."""
        y, x = divmod(int(self.values[k].argmax()), self.values.shape[2])
        return y, x

    def name_unit(self, k: int) -> str:
        """The k-th map's strongest unit, written as a target: `conv1:5@4,4`."""
        y, x = self.find_peak(k)
        return f"{self.layer}:{self.channels[k]}@{y},{x}"


def _parse_layers(entries: Sequence[str]) -> dict[str, list[int]]:
    """From LAYER and LAYER:CHANNEL to the layers, each with the channels asked for; none stands for the strongest."""
    if not entries:
        raise ParameterError("FeatureMaps: layers must name a layer, got none. Leave it out for a choice of them")
    layers: dict[str, list[int]] = {}
    for entry in entries:
        layer, colon, channel = entry.partition(":")
        if colon and not channel.isdecimal():
            raise ParameterError(f"FeatureMaps: a layer is named as LAYER or LAYER:CHANNEL, got {entry!r}")
        layers.setdefault(layer, []).extend([int(channel)] if channel else [])
    return layers


def _choose_layers(model: Model, image: Tensor) -> list[str]:
    """Of each size of map the last layer that gives it; of many sizes some, evenly from first to last."""
    last: dict[tuple[int, int], str] = {}
    for name, size in find_spatial_layers(model, image).items():
        last.pop(size, None)  # otherwise the size would keep the place of its first layer
        last[size] = name
    if not last:
        raise TargetError(f"no layer of {model.name} gives maps (N, C, H, W), so there is nothing to show")
    indices = np.linspace(0, len(last) - 1, min(len(last), _MOST_LAYERS)).round().astype(int)
    return [list(last.values())[i] for i in indices]


def _check_maps(layer: str, output: Tensor, again: Tensor) -> Array:
    """A layer's output (1, C, h, w) as an array (C, h, w), checked to be finite and the same in a second run."""
    if output.dim() != 4:
        raise TargetError(
            f"layer {layer!r} gives {describe_activations(output)}, not maps (N, C, H, W). Choose a layer before it"
        )
    if not output.isfinite().all():
        raise NonFiniteResult(f"layer {layer!r} gives NaN or infinity for this image. Check the weights")
    if not torch.allclose(output, again, rtol=1e-3, atol=1e-5 * float(output.abs().max())):
        raise DegenerateResult(
            f"layer {layer!r} differs between two runs on the same image, though the network is in eval mode. Does it "
            "use functional dropout without training=self.training, or noise?"
        )
    maps: Array = output[0].float().cpu().numpy()  # (C, h, w)
    return maps


def _select_strongest(layer: str, maps: Array, asked: Sequence[int], most: int) -> LayerMaps:
    """The channels asked for, or the `most` strongest; in either case the strongest first."""
    if asked and max(asked) >= len(maps):
        raise TargetError(f"layer {layer!r} has channels 0 to {len(maps) - 1}, got {max(asked)}")
    channels = np.array(sorted(set(asked)) or range(len(maps)))
    strength = maps[channels].max((1, 2))
    channels = channels[np.argsort(-strength, kind="stable")][: None if asked else most]
    return LayerMaps(layer, tuple(channels.tolist()), maps[channels], len(maps))


def _find_limits(of_images: Sequence[LayerMaps]) -> tuple[float, float]:
    """The scale of a layer for all images: from zero, or the lowest value below it, to the highest."""
    low = min(0.0, *(float(one.values.min()) for one in of_images))
    high = max(float(one.values.max()) for one in of_images)
    return low, high if high > low else low + 1


def _find_box(subject: Subject, i: int, maps: LayerMaps, field: ReceptiveField | None) -> Box | None:
    """What the layer's strongest unit sees of photograph i, in its px; None where that is nothing, or not known."""
    box = field.box(*maps.find_peak(0)) if field else None
    return subject.in_photo(i, box) if box and box.bottom > box.top and box.right > box.left else None


def _make_panel(i: int, maps: LayerMaps, limits: tuple[float, float]) -> Panel:
    count, h, w = maps.values.shape
    units = [maps.name_unit(k).removeprefix(maps.layer) for k in range(count)]  # the panel's title names the layer
    return Panel(
        key=f"image{i}.{maps.layer}",
        title=f"{maps.layer}: {count} of {maps.of} channels of {h} x {w}, strongest first",
        values=maps.values,
        channels=maps.channels,
        titles=tuple(f"{unit}\n{one.max():.3g}" for unit, one in zip(units, maps.values, strict=True)),
        limits=(limits,) * count,
        meaning="activation",
        colours="magnitude",
    )


def _describe(subject: Subject, i: int, maps: LayerMaps, box: Box | None) -> str:
    """One sentence: the layer's strongest unit, its value and what it sees."""
    sees = f"; it sees the {subject.place(i, box)}" if box else ""
    unit, value = maps.name_unit(0), float(maps.values[0].max())
    return f"{subject.photos[i].name}: {unit} is the strongest shown unit of its layer ({value:.3g}){sees}"


def _describe_missing_boxes(layers: Iterable[str], fields: Fields) -> Iterator[str]:
    if without := [layer for layer in layers if layer in fields and fields[layer] is None]:
        yield (
            f"what the units of {', '.join(without)} see would have to be measured, so no box is drawn for them; "
            "see: vizcnn layers"
        )
