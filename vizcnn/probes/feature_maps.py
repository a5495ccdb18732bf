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

Maps = npt.NDArray[np.float32]
Wanted = Mapping[str, Sequence[int]]
Fields = Mapping[str, ReceptiveField | None]

_MOST_LAYERS = 5


class FeatureMaps(Probe[ImageGrid]):
    """What do the layers of the network make of this image?

    Each tile is the output of one channel of a layer. The channels with the largest value anywhere come first; a tile's
    title is `:CHANNEL@Y,X`, the unit with that value by its place among the layer's own positions, and the value. All
    tiles of a layer share one scale, over all images of the call. The box on the photograph, in the colour of the
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
            _chosen(self.layers)

    def compute(self, subject: Subject) -> ImageGrid:
        wanted = _chosen(self.layers or _spread(subject.model, subject.inputs[:1]))
        found = [self._shown(subject.model, image[None], wanted) for image in subject.inputs]
        fields = trace_fields(subject.model, (int(subject.inputs.shape[2]), int(subject.inputs.shape[3])))
        limits = {layer: _limits([shown[layer] for shown in found]) for layer in wanted}
        rows, findings = [], []
        for i, shown in enumerate(found):
            boxes = [_box(subject, i, one, fields.get(one.layer)) for one in shown.values()]
            rows.append(_row(subject, i, shown, limits, boxes))
            findings += [_finding(subject, i, *pair) for pair in zip(shown.values(), boxes, strict=True)]
        provenance = subject.provenance(layers=",".join(wanted), channels=self.channels)
        return ImageGrid(provenance, tuple(rows), (*findings, *_notes(wanted, fields)))

    @torch.no_grad()
    def _shown(self, model: Model, image: Tensor, wanted: Wanted) -> dict[str, Shown]:
        """The chosen maps of each layer for one image (1, C, H, W)."""
        once, again = (read_activations(model, image, wanted) for _ in range(2))
        return {
            layer: _strongest(layer, _maps(layer, once[layer], again[layer]), channels, self.channels)
            for layer, channels in wanted.items()
        }


@dataclass(frozen=True)
class Shown:
    """The chosen maps of one layer for one image, strongest first.

    channels: their numbers, (K,). values: float32 (K, h, w). of: how many channels the layer has.
    """

    layer: str
    channels: tuple[int, ...]
    values: Maps
    of: int

    def peak(self, k: int) -> tuple[int, int]:
        """Row and column of the k-th map's largest value."""
        y, x = divmod(int(self.values[k].argmax()), self.values.shape[2])
        return y, x

    def unit(self, k: int) -> str:
        """The k-th map's strongest unit as a target would name it, behind the layer: `:5@4,4`."""
        y, x = self.peak(k)
        return f":{self.channels[k]}@{y},{x}"


def _chosen(entries: Sequence[str]) -> dict[str, list[int]]:
    """The layers that are meant, each with the channels asked for; none stands for the strongest."""
    if not entries:
        raise ParameterError("FeatureMaps: layers must name a layer, got none. Leave it out for a choice of them")
    chosen: dict[str, list[int]] = {}
    for entry in entries:
        layer, colon, channel = entry.partition(":")
        if colon and not channel.isdecimal():
            raise ParameterError(f"FeatureMaps: a layer is named as LAYER or LAYER:CHANNEL, got {entry!r}")
        chosen.setdefault(layer, []).extend([int(channel)] if channel else [])
    return chosen


def _spread(model: Model, image: Tensor) -> list[str]:
    """Of each size of map the last layer that gives it; of many sizes some, evenly from first to last."""
    ends: dict[tuple[int, int], str] = {}
    for name, size in find_spatial_layers(model, image).items():
        ends.pop(size, None)  # so that the ends come in the order of running
        ends[size] = name
    if not ends:
        raise TargetError(f"no layer of {model.name} gives maps (N, C, H, W), so there is nothing to show")
    kept = np.linspace(0, len(ends) - 1, min(len(ends), _MOST_LAYERS)).round().astype(int)
    return [list(ends.values())[i] for i in kept]


def _maps(layer: str, output: Tensor, again: Tensor) -> Maps:
    """A layer's output (1, C, h, w) as an array (C, h, w), seen to be finite and the same in a second run."""
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
    maps: Maps = output[0].float().cpu().numpy()  # (C, h, w)
    return maps


def _strongest(layer: str, maps: Maps, asked: Sequence[int], most: int) -> Shown:
    """The channels asked for, or the `most` strongest; in either case the strongest first."""
    if asked and max(asked) >= len(maps):
        raise TargetError(f"layer {layer!r} has channels 0 to {len(maps) - 1}, got {max(asked)}")
    channels = np.array(sorted(set(asked)) or range(len(maps)))
    strength = maps[channels].max((1, 2))
    channels = channels[np.argsort(-strength, kind="stable")][: None if asked else most]
    return Shown(layer, tuple(channels.tolist()), maps[channels], len(maps))


def _limits(shown: Sequence[Shown]) -> tuple[float, float]:
    """The scale of a layer for all images: from zero, or the lowest value below it, to the highest."""
    low = min(0.0, *(float(one.values.min()) for one in shown))
    high = max(float(one.values.max()) for one in shown)
    return low, high if high > low else low + 1


def _box(subject: Subject, i: int, shown: Shown, field: ReceptiveField | None) -> Box | None:
    """What the layer's strongest unit sees of photograph i, in its px; None where no field is known, or it is empty."""
    box = field.box(*shown.peak(0)) if field else None
    return subject.in_photo(i, box) if box and box.bottom > box.top and box.right > box.left else None


def _row(
    subject: Subject,
    i: int,
    shown: Mapping[str, Shown],
    limits: Mapping[str, tuple[float, float]],
    boxes: Sequence[Box | None],
) -> Row:
    units = [one.layer + one.unit(0) for one in shown.values()]
    marks = tuple(Mark(box, unit) if box else None for box, unit in zip(boxes, units, strict=True))
    panels = tuple(_panel(i, one, limits[layer]) for layer, one in shown.items())
    return Row(panels, Scene(subject.photos[i], subject.seen[i], marks))


def _panel(i: int, shown: Shown, limits: tuple[float, float]) -> Panel:
    count, h, w = shown.values.shape
    return Panel(
        key=f"image{i}.{shown.layer}",
        title=f"{shown.layer}: {count} of {shown.of} channels of {h} x {w}, strongest first",
        values=shown.values,
        channels=shown.channels,
        titles=tuple(f"{shown.unit(k)}\n{shown.values[k].max():.3g}" for k in range(count)),
        limits=(limits,) * count,
        meaning="activation",
        colours="magnitude",
    )


def _finding(subject: Subject, i: int, shown: Shown, box: Box | None) -> str:
    """One sentence: the layer's strongest unit, its value and what it sees."""
    sees = f"; it sees the {subject.place(i, box)}" if box else ""
    unit, value = shown.layer + shown.unit(0), float(shown.values[0].max())
    return f"{subject.photos[i].name}: {unit} is the strongest shown unit of its layer ({value:.3g}){sees}"


def _notes(layers: Iterable[str], fields: Fields) -> Iterator[str]:
    """For which layers there is no box."""
    if without := [layer for layer in layers if layer in fields and fields[layer] is None]:
        yield (
            f"what the units of {', '.join(without)} see would have to be measured, so no box is drawn for them; "
            "see: vizcnn layers"
        )
