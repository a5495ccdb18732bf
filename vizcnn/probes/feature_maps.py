"""Feature maps: what the layers of a network make of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import NetworkError, NonFiniteResult, ParameterError, TargetError, UnsuitableNetwork
from vizcnn.geometry import Box
from vizcnn.models.batches import answer_each, default_batch
from vizcnn.models.clean import check_output
from vizcnn.models.layers.axes import find_spatial_layers, pick_last_of_sizes
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.terms import describe_activations
from vizcnn.probing.facts import Facts, require_output
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.receptive import ReceptiveField, trace_fields
from vizcnn.results import ImageGrid, Mark, Panel, Row, Scene, format_number

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

        >>> import vizcnn
        >>> result = vizcnn.FeatureMaps(layers="layer2:27, layer2:62")(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.save("maps.png").name
        'maps.png'

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

    def rehearse(self, facts: Facts) -> str:
        layers = _parse_layers(self.layers or _choose_layers(facts.model, facts.image))
        require_output(facts)
        (maps,) = _read_layers(facts.model, facts.image, layers, check=True)
        self._select_maps(maps, layers)
        return ", ".join(layers)

    def compute(self, subject: Subject) -> ImageGrid:
        layers = _parse_layers(self.layers or _choose_layers(subject.model, subject.inputs[:1]))
        count, size = len(subject.inputs), subject.size

        def read(part: slice) -> list[dict[str, LayerMaps]]:
            at_an_end = part.start == 0 or part.stop == count
            by_image = _read_layers(subject.model, subject.inputs[part], layers, check=at_an_end)
            return [self._select_maps(one, layers) for one in by_image]

        device = subject.inputs.device
        batch = 1 if device.type == "cpu" else default_batch(size, device)  # a processor gains nothing by company
        answers = answer_each(count, read, batch=batch, strict=subject.strict)
        subject = subject.keep(answers)
        fields = trace_fields(subject.model, size)
        limits = {layer: _find_limits([maps[layer] for maps in answers.rows]) for layer in layers}
        rows, findings = [], []
        for i, maps in enumerate(answers.rows):
            boxes = {layer: _find_box(subject, i, one, fields.get(layer)) for layer, one in maps.items()}
            marks = tuple(Mark(box, maps[layer].name_unit(0)) if box else None for layer, box in boxes.items())
            panels = tuple(_make_panel(i, one, limits[layer]) for layer, one in maps.items())
            rows.append(Row(panels, Scene(subject.photos[i], subject.seen[i], marks)))
            findings.append(_describe(subject, i, [*maps.values()], boxes))
        return ImageGrid(
            subject.provenance(layers=",".join(layers), channels=self.channels),
            tuple(rows),
            (*findings, *_describe_missing_boxes(layers, fields)),
            partial=answers.partial,
        )

    def _select_maps(self, maps: Mapping[str, Tensor], layers: ChannelsByLayer) -> dict[str, LayerMaps]:
        """What to show of one image's maps (C, h, w), for each layer."""
        return {
            layer: _select_strongest(layer, _to_array(layer, maps[layer]), channels, self.channels)
            for layer, channels in layers.items()
        }


@torch.no_grad()
def _read_layers(model: Model, images: Tensor, layers: Iterable[str], *, check: bool) -> list[dict[str, Tensor]]:
    """For each of the images (B, C, H, W) the maps (C, h, w) that the layers give. Raises NonFiniteResult where the
    network's output is NaN or infinite, as for an image that runs alone when the network is checked.

    The first of several, or with `check` also a single image, runs once more alone, to see that this changes nothing.
    Where it does, or where the network takes one image only, each of several runs alone. Raises TargetError for a
    layer without maps, UnsuitableNetwork for a random network."""
    try:
        together = read_activations(model, images, layers)
        check_output(model, together, len(images))
        alone = read_activations(model, images[:1], layers) if check or len(images) > 1 else together
        for layer in layers:
            _check_maps(layer, together[layer][:1], alone[layer])
    except (UnsuitableNetwork, NetworkError):
        if len(images) == 1:
            raise
        return [one for image in images.split(1) for one in _read_layers(model, image, layers, check=True)]
    return [{layer: together[layer][i] for layer in layers} for i in range(len(images))]


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
    """The model's own default layer, or of each size of map the last layer that gives it, at most so many as a picture
    holds."""
    if model.default_layer is not None:
        return [model.default_layer]
    if layers := pick_last_of_sizes(find_spatial_layers(model, image), _MOST_LAYERS):
        return layers
    raise TargetError(f"no layer of {model.name} gives maps (N, C, H, W), so there is nothing to show")


def _check_maps(layer: str, activations: Tensor, alone: Tensor) -> None:
    """Check that a layer gives maps, and the same for an image in two runs, the second of which is of it alone."""
    if alone.dim() != 4:
        raise TargetError(
            f"layer {layer!r} gives {describe_activations(alone)}, not maps (N, C, H, W). Choose a layer before it"
        )
    near = 1e-5 * float(alone.abs().max())
    if alone.isfinite().all() and not torch.allclose(activations, alone, rtol=1e-3, atol=near):
        raise UnsuitableNetwork(
            f"layer {layer!r} differs between two runs on the same image, though the network is in eval mode. Does it "
            "use functional dropout without training=self.training, or noise?"
        )


def _to_array(layer: str, maps: Tensor) -> Array:
    """A layer's maps (C, h, w) for one image as an array. Raises NonFiniteResult."""
    near = maps.cpu().float()  # moved before anything is read
    if not near.isfinite().all():
        raise NonFiniteResult(f"layer {layer!r} gives NaN or infinity for this image. Check the weights")
    array: Array = near.numpy()
    return array


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
    largest = [format_number(float(one.max())) for one in maps.values]
    return Panel(
        key=f"image{i}.{maps.layer}",
        title=f"{maps.layer}: {count} of {maps.of} channels of {h} x {w}" + ", strongest first" * (count > 1),
        values=maps.values,
        channels=maps.channels,
        titles=tuple(f"{unit}\n{value}" for unit, value in zip(units, largest, strict=True)),
        limits=(limits,) * count,
        meaning="activation",
        colours="magnitude",
    )


def _describe(subject: Subject, i: int, of_layers: Sequence[LayerMaps], boxes: Mapping[str, Box | None]) -> str:
    """One sentence: of some layers the strongest unit, its value and what it sees."""
    shown = [of_layers[k] for k in sorted({0, len(of_layers) // 2, len(of_layers) - 1})]  # from first to last
    said = []
    for maps in shown:
        box, value = boxes[maps.layer], float(maps.values[0].max())
        sees = f", which sees the {subject.place(i, box)}" if box else ""
        said.append(f"{maps.name_unit(0)} (activation {format_number(value)}){sees}")
    those = "the strongest unit of its layer is" if len(said) == 1 else "the strongest units of their layers are"
    return f"{subject.photos[i].name}: {those} {'; '.join(said)}"


def _describe_missing_boxes(layers: Iterable[str], fields: Fields) -> Iterator[str]:
    if without := [layer for layer in layers if layer in fields and fields[layer] is None]:
        yield (
            f"what the units of {', '.join(without)} see would have to be measured, so no box is drawn for them; "
            "see: vizcnn layers"
        )
