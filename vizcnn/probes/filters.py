"""Filters: the kernels of a convolution, as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from vizcnn.errors import LayerNotFound, NonFiniteResult, ParameterError
from vizcnn.models.layers.kernels import find_used_kernels, list_convolutions, reads_image
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.probing.facts import Facts
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Film, ImageGrid, Panel, Row

Kernels = npt.NDArray[np.float32]
Order = npt.NDArray[np.intp]

_COLOURLESS = 0.5  # a kernel counts as grey if its strongest colour is below this share of its largest weight
_UNORIENTED = 0.25  # a kernel counts as having no direction if its coherence is below this


class Filters(Probe[ImageGrid]):
    """Which patterns do the kernels of a convolution look for?

    Each tile is one kernel: the weights by which a filter multiplies a patch of its input. Where each run computes them
    anew (weight norm, pruning), they are those of eval mode. Zero is mid-grey, brighter weights are positive.
    Kernels on the RGB image are drawn in colour: a reddish pixel is one where red speaks for the filter more than green
    and blue do. Behind the first layer a kernel has a slice per input channel, and one is shown.
    With `compare` each filter stands beside the same filter of other models, in the order of the first: mostly of the
    same network earlier in its training. Saved as .gif they are a film: the compared states in their order, and the
    model itself last, all on one scale; with `difference`, beside each filter what has changed since the first of them.

    Sorted by `norm`: the largest first (L2, of what is shown). By `hue`: around the colour circle from magenta, by the
    kernel's most colourful pixel (the hue of its weights less their mean over the channels); kernels whose colour is
    weaker than half their largest weight come last. By `orientation`: the direction of edges and stripes,
    horizontal first, then counterclockwise, from the structure tensor of the kernel; kernels without one direction
    (coherence below a quarter) come last.

        >>> import vizcnn
        >>> result = vizcnn.Filters(sort="norm", compare="simple@initial")(vizcnn.load("simple"))
        >>> result.save("filters.png").name
        'filters.png'

    Source: Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
    figure 3. Raises LayerNotFound, ParameterError, NonFiniteResult, and for `compare` what vizcnn.load raises.
    """

    paper: ClassVar[str] = "Krizhevsky et al. 2012, NeurIPS 25, figure 3"
    needs_images: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False

    layer: str | None = param(None, "A convolution by its dotted name; by default the first of the network.")
    channel: int | None = param(
        None,
        "The input channel whose weights are shown, counted within its group; by default 0, or all three in colour for "
        "the first layer of a network that takes RGB.",
        min=0,
    )
    scale: Literal["shared", "each"] = param(
        "shared", "One brightness scale for all filters, or for each its own (which hides how large they are)."
    )
    sort: Literal["none", "norm", "hue", "orientation"] = param("none", "In which order.")
    compare: str | tuple[str, ...] | None = param(
        None,
        "Other models, separated by commas, such as simple@initial: beside each filter, the same filter of each. A * "
        "stands for all files of such names, in the order of their numbers, as in runs/lecture-*.safetensors, without "
        "the model itself.",
        parse=parse_names,
    )
    difference: bool = param(
        False,
        "Beside each filter also the change: the model less the first compared one, on a scale of its own (with "
        "compare).",
    )
    most: int = param(96, "Show at most this many filters, the first in the order.", min=1)

    def check(self) -> None:
        if self.difference and not self.compare:
            raise ParameterError("Filters: difference needs a second model. Name one: compare='simple@initial'")

    def rehearse(self, facts: Facts) -> str:
        layer = self.layer or _find_first_convolution(facts.model)
        _read_kernels(facts.model, layer)
        return layer

    def makes_film(self) -> bool:
        return bool(self.compare)

    def compute(self, subject: Subject) -> ImageGrid:
        model = subject.model
        name = self.layer or _find_first_convolution(model)
        first = _read_state(model, name)
        states = [first, *self._read_compared(model, first, name)]
        channel = self._choose_channel(model, name, states[0].kernels)
        tiles = [_select_tiles(state.kernels, channel) for state in states]
        order = _ORDERS[self.sort](tiles[0])[: self.most]  # (k,)
        title = self._write_title(model, name, channel, len(order))
        shown = _Shown(_tell_apart(states), title, [each[order] for each in tiles], order, self.scale)
        compared = {"compared": _list_compared(states[1:])} if self.compare else {}
        provenance = subject.provenance(
            layer=name, channel="rgb" if channel is None else channel, sort=self.sort, scale=self.scale, **compared
        )
        findings = *_list_findings(shown.names, tiles, name), *(note for state in states[1:] for note in state.notes)
        rows = (shown.make_row(difference=self.difference),)
        if not self.compare:
            return ImageGrid(provenance, rows, findings)
        return Film(provenance, rows, findings, shown.make_frames(difference=self.difference))

    def _read_compared(self, model: Model, first: _State, name: str) -> Iterator[_State]:
        """The same layer of the models to compare with, one after the other. first: that of the model."""
        named = parse_names(self.compare) if isinstance(self.compare, str) else self.compare or ()
        found = 0
        for text in named:
            for spec in _expand(text):
                # with the size of inputs, without which a plain network is no Model
                other = load(spec, trust_pickle=model.trusts_pickle, input_size=model.input.size)
                state = _read_state(other, name, of=first)
                if spec == text or state.digest != first.digest:
                    found += 1
                    yield state
        if named and not found:
            raise ParameterError(f"compare: {', '.join(named)} is {first.name} alone. Name another state of it")

    def _choose_channel(self, model: Model, name: str, kernels: Kernels) -> int | None:
        """The input channel to show; None for all three, in colour."""
        if self.channel is None:
            return None if model.input.channels == 3 and reads_image(model, name) else 0
        if self.channel >= kernels.shape[1]:
            last = kernels.shape[1] - 1
            raise ParameterError(f"the kernels of {name!r} have input channels 0 to {last}, got channel {self.channel}")
        return self.channel

    def _write_title(self, model: Model, name: str, channel: int | None, shown: int) -> str:
        module = model.layer(name)
        assert isinstance(module, nn.Conv2d)
        h, w = module.kernel_size
        inputs = module.in_channels // module.groups
        of = f"input channel {channel} of {inputs}" + (f" in each of {module.groups} groups" * (module.groups > 1))
        parts = [f"{name}: {module.out_channels} filter{'s' * (module.out_channels > 1)} of {h} x {w}"]
        parts += ["in colour"] if channel is None else [of] * (inputs > 1)
        parts += [f"sorted by {self.sort}"] * (self.sort != "none")
        parts += [f"the first {shown} shown"] * (shown < module.out_channels)
        return ", ".join(parts)


def _find_first_convolution(model: Model) -> str:
    if names := list_convolutions(model):
        return names[0]
    raise LayerNotFound(f"{model.name} has no convolution (no nn.Conv2d), so it has no kernels to show")


def _read_kernels(model: Model, name: str) -> Kernels:
    """The weights of a convolution, float32 (K, C / groups, h, w)."""
    module = model.layer(name)
    if not isinstance(module, nn.Conv2d):
        known = list_convolutions(model)
        some = ", ".join(known[:4]) + (f" and {len(known) - 4} more" if len(known) > 4 else "")
        raise ParameterError(
            f"layer {name!r} of {model.name} is {type(module).__name__}, not an nn.Conv2d. Choose one: {some or 'none'}"
        )
    weights: Kernels = find_used_kernels(model, name).float().cpu().numpy()  # (K, C / groups, h, w)
    if not np.isfinite(weights).all():
        raise NonFiniteResult(f"the weights of {name!r} of {model.name} hold NaN or infinity. Check the checkpoint")
    return weights


@dataclass(frozen=True)
class _State:
    """The kernels of a layer, float32 (K, C / groups, h, w), in one of the models."""

    name: str
    digest: str
    notes: tuple[str, ...]
    kernels: Kernels


def _read_state(model: Model, name: str, of: _State | None = None) -> _State:
    """of: what these kernels are compared with. Raises ParameterError for kernels of another shape than its own."""
    kernels = _read_kernels(model, name)
    if of and kernels.shape != of.kernels.shape:
        raise ParameterError(
            f"{name!r} has kernels {of.kernels.shape} in {of.name} and {kernels.shape} in {model.name}. "
            "Compare two states of one network"
        )
    return _State(model.name, model.weights_sha256()[:8], model.notes, kernels)


def _expand(spec: str) -> list[str]:
    """The models that a text with a * stands for, in the order of the numbers in their names."""
    if "*" not in spec:
        return [spec]
    name, at, pattern = spec.rpartition("@")
    files = sorted(glob(pattern), key=lambda file: [int(part) if part.isdigit() else part for part in _cut(file)])
    if not files:
        raise ParameterError(f"compare: no file is named like {pattern}. Look at its folder")
    return [f"{name}{at}{file}" for file in files]


def _cut(text: str) -> list[str]:
    """A text cut into what is a number and what is none, in turns."""
    return re.split(r"(\d+)", text)


def _select_tiles(kernels: Kernels, channel: int | None) -> Kernels:
    """What is drawn of kernels (K, C, h, w): all channels as colours, (K, h, w, 3), or one of them, (K, h, w)."""
    return np.moveaxis(kernels, 1, 3) if channel is None else kernels[:, channel]


def _tell_apart(states: Sequence[_State]) -> list[str]:
    """The models' names; with their weights' digests where some are called the same."""
    names = [state.name for state in states]
    return names if len(set(names)) == len(names) else [f"{state.name} {state.digest}" for state in states]


def _list_compared(states: Sequence[_State]) -> str:
    """The compared models with their digests, the ends of many: panels have all of them in their titles."""
    named = [f"{state.name} {state.digest}" for state in states]
    return ", ".join(named) if len(named) < 3 else f"{named[0]} to {named[-1]} ({len(named)} states)"


@dataclass(frozen=True)
class _Shown:
    """What is drawn: the kernels of each model, the first of which the others are compared with, in one order.

    A shared scale is that of all models. Changes have a scale of their own, since training may have changed little."""

    names: Sequence[str]
    title: str
    values: Sequence[Kernels]
    order: Order
    scale: str

    def make_row(self, *, difference: bool) -> Row:
        """A panel per model and one of the change, whose filters stand side by side."""
        limits = _find_limits(self.values, self.scale)
        panels = [self._make_panel("filters", f"{self.names[0]}  {self.title}", self.values[0], limits[0])]
        for i in range(1, len(self.values)):
            key = "compared" if i == 1 else f"compared-{i}"
            panels.append(self._make_panel(key, f"{self.names[i]}  the same filters", self.values[i], limits[i]))
        if len(panels) == 1:
            return Row(tuple(panels))
        names, first = [*self.names], self.names[1]
        if difference:
            names.append("the first less the second")
            change = self.values[0] - self.values[1]
            ends = _find_limits([change], self.scale)[0]
            panels.append(self._make_panel("difference", f"{self.names[0]} less {first}", change, ends, "difference"))
        return Row(tuple(panels), names=tuple(names))

    def make_frames(self, *, difference: bool) -> tuple[Row, ...]:
        """A row per model, the first of all last, on the scales of all of them."""
        names, values = [*self.names[1:], self.names[0]], [*self.values[1:], self.values[0]]
        changes = [each - values[0] for each in values]
        limits, ends = _find_limits(values, self.scale), _find_limits(changes, self.scale)
        rows = []
        for i, name in enumerate(names):
            panel = self._make_panel(f"frame-{i}", f"{name}  {self.title}", values[i], limits[i])
            if not difference:
                rows.append(Row((panel,)))
                continue
            change = self._make_panel(f"change-{i}", f"{name} less {names[0]}", changes[i], ends[i], "difference")
            rows.append(Row((panel, change), names=("the filter", f"its change since {names[0]}")))
        return tuple(rows)

    def _make_panel(
        self, key: str, title: str, values: Kernels, limits: tuple[tuple[float, float], ...], meaning: str = "weight"
    ) -> Panel:
        channels = tuple(self.order.tolist())
        return Panel(key, title, values, channels, tuple(map(str, channels)), limits, meaning)


def _find_limits(values: Sequence[Kernels], scale: str) -> list[tuple[tuple[float, float], ...]]:
    """For the kernels (k, ...) of each panel the limits of each: all the same, or each kernel its own."""
    largest = [np.abs(v).reshape(len(v), -1).max(1) for v in values]  # (k,)
    if scale == "shared":
        largest = [np.full_like(of_panel, np.max(largest)) for of_panel in largest]
    ends = [np.where(of_panel > 0, of_panel, 1) for of_panel in largest]  # all zero is mid-grey on any scale
    return [tuple((-end, end) for end in of_panel.tolist()) for of_panel in ends]


def _list_findings(names: Sequence[str], tiles: Sequence[Kernels], layer: str) -> Iterator[str]:
    norms = _compute_norms(tiles[0])
    most, least = norms.argmax(), norms.argmin()
    if len(tiles) == 1:
        largest = f"the largest is filter {most} (norm {norms[most]:.3g}), the smallest filter {least}"
        yield f"{layer} of {names[0]}: {len(norms)} filters; {largest} ({norms[least]:.3g})"
        return
    medians = [float(np.median(_compute_norms(each))) for each in tiles]
    yield (
        f"{layer}: {len(norms)} filters; the median of their norms is {medians[0]:.3g} in {names[0]}, "
        f"{medians[1]:.3g} in {names[1]}"
    )
    change = _compute_norms(tiles[1] - tiles[0])
    most, least = change.argmax(), change.argmin()
    if not change[most]:
        yield "no filter differs between the two"
        return
    yield (
        f"filter {most} differs most between the two (norm of the difference {change[most]:.3g}), "
        f"filter {least} least ({change[least]:.3g})"
    )


def _compute_norms(kernels: Kernels) -> Kernels:
    """L2 norm of each kernel, (K,)."""
    norms: Kernels = np.sqrt(np.square(kernels).reshape(len(kernels), -1).sum(1))
    return norms


def _sort_by_norm(kernels: Kernels) -> Order:
    return np.argsort(-_compute_norms(kernels), kind="stable")


def _sort_by_hue(kernels: Kernels) -> Order:
    if kernels.ndim != 4:
        raise ParameterError("sort='hue' needs kernels in colour, and these are grey. Sort by norm or orientation")
    hue, strength = compute_hues(kernels)
    colourless = strength < _COLOURLESS * np.abs(kernels).max((1, 2, 3))
    return np.lexsort(((hue + 60) % 360, colourless))  # from 300, magenta: reds, which lie around 0, stay together


def _sort_by_orientation(kernels: Kernels) -> Order:
    if min(kernels.shape[1:3]) < 2:
        h, w = kernels.shape[1:3]
        raise ParameterError(f"sort='orientation' needs kernels of at least 2 x 2, got {h} x {w}. Sort by norm")
    angle, coherence = compute_orientations(kernels)
    return np.lexsort(((angle + 22.5) % 180, coherence < _UNORIENTED))  # horizontals, around 0, stay together


def compute_hues(kernels: Kernels) -> tuple[Kernels, Kernels]:
    """Hue in degrees (red 0, green 120, blue 240) and strength of the most colourful pixel of kernels (K, h, w, 3).

    Less their mean, a pixel's three weights are a point in a plane with grey at the origin. The angle of the point is
    the hue, its distance from grey the strength, in units of the weights.
    """
    red, green, blue = np.moveaxis(kernels.reshape(len(kernels), -1, 3), 2, 0)  # each (K, h * w)
    across, up = red - (green + blue) / 2, (green - blue) * np.sqrt(3) / 2  # red points right, green and blue left
    strength = np.hypot(across, up)  # (K, h * w)
    most_colourful = np.arange(len(kernels)), strength.argmax(1)
    return np.degrees(np.arctan2(up, across))[most_colourful] % 360, strength[most_colourful]


def compute_orientations(kernels: Kernels) -> tuple[Kernels, Kernels]:
    """Angle of edges and stripes in degrees (horizontal 0, counterclockwise, below 180) and its coherence in [0, 1].

    kernels: (K, h, w) or (K, h, w, 3), at least 2 x 2. From the structure tensor: with the weights' slopes r to the
    right and u upwards, and sums over the kernel, the slope's angle is arctan2(2 sum(r u), sum(r^2) - sum(u^2)) / 2.
    Both slopes are taken over 2 x 2 pixels, so that they belong to one point, the corner where the four meet.
    """
    corners = kernels[:, :-1, :-1], kernels[:, :-1, 1:], kernels[:, 1:, :-1], kernels[:, 1:, 1:]
    upper_left, upper_right, lower_left, lower_right = (c.reshape(len(kernels), -1) for c in corners)
    right = upper_right + lower_right - upper_left - lower_left
    up = upper_left + upper_right - lower_left - lower_right
    difference, twice = np.square(right).sum(1) - np.square(up).sum(1), 2 * (right * up).sum(1)
    total = np.square(right).sum(1) + np.square(up).sum(1)
    angle = np.degrees(np.arctan2(twice, difference)) / 2 + 90  # stripes run across the slope
    return angle % 180, np.hypot(difference, twice) / np.maximum(total, np.finfo(np.float32).tiny)


_ORDERS: dict[str, Callable[[Kernels], Order]] = {
    "none": lambda kernels: np.arange(len(kernels)),
    "norm": _sort_by_norm,
    "hue": _sort_by_hue,
    "orientation": _sort_by_orientation,
}
