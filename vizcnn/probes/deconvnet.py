"""Deconvnet: what pattern in the image made a unit fire?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, NonFiniteResult, VizcnnError
from vizcnn.geometry import Box
from vizcnn.models.backward import DeconvnetRule
from vizcnn.models.determinism import pick_rows
from vizcnn.models.layers.axes import find_spatial_layers, pick_last_of_sizes
from vizcnn.models.layers.capture import open_reader, read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.models.terms import Unit
from vizcnn.probing.attribution import answer_pairs, require_gradient, score
from vizcnn.probing.facts import Facts, require_answer, require_backward, require_steadiness
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.results import Mark, Panel, Projections, Row, Scene, format_score

_MOST_LAYERS = 4
_MOST_SAID = 3  # units of an image that its sentence names


class Deconvnet(Probe[Projections]):
    """Which pattern in the image made this unit fire? Its activation, projected back to pixels.

    All other activations of the layer are set to zero, and the unit's is passed backwards: unpooled to where each
    maximum came from, rectified, filtered with the transposed kernels. Where the maxima of overlapping windows are the
    same pixel, the strongest value is placed there, once (a gradient would add them up). A target `LAYER:CHANNEL`
    takes the channel's strongest position in the image, as the paper does; `LAYER:CHANNEL@Y,X` one neuron; a class its
    logit. Without a target, each image has the strongest unit of some layers, `strongest(LAYER)`: of each size of map
    the last layer behind a ReLU, at most four from first to last.

    The projection is signed, in units of the normalised input, and drawn with mid-grey at zero. It is cut to the pixels
    that it reaches; their box is drawn on the photograph, and the same part of it beside the projection. Batch
    normalisation is passed by its scale, as in a gradient.

        >>> import vizcnn
        >>> result = vizcnn.Deconvnet()(vizcnn.load("tiny"), "sample:grace_hopper", target="layer2:62")
        >>> result.provenance.targets
        (('layer2:62',),)

    Paper: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.
    Raises DegenerateResult (a unit that is not active, activations other than ReLU), TargetError, LayerNotFound.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    makes_maps: ClassVar[bool] = True

    def default_targets(self, model: Model) -> Sequence[Any] | None:
        return [f"strongest({layer})" for layer in _choose_layers(model)] or None

    def rehearse(self, facts: Facts) -> str:
        chosen = [] if facts.given else _choose_layers(facts.model)
        if chosen:
            require_steadiness(facts)
            slopes = require_backward(facts)
            slopes.relus.check(pools=True)
            if slopes.attached.isdisjoint(chosen):
                require_gradient(torch.zeros(1), [target(f"strongest({layer})") for layer in chosen], "the pixels")
            for layer in chosen:
                if layer not in slopes.attached:
                    raise _describe_lost(f"strongest({layer})")
            return f"the strongest units of {', '.join(chosen)}"
        asked, slopes = require_answer(facts), require_backward(facts)
        slopes.relus.check(pools=True)
        if not (score := float(slopes.score)) > 0:
            raise _describe_inactive(asked, score, facts.photo.name)
        return str(asked)

    def choose_explained(self, subject: Subject) -> Sequence[Sequence[Target]]:
        return [
            _choose_positions(subject, image.expand(len(targets), -1, -1, -1), targets)
            for image, targets in zip(subject.inputs, subject.targets, strict=True)
        ]

    def compute(self, subject: Subject) -> Projections:
        subject = subject.run()
        answers = answer_pairs(subject, partial(_project, subject), label="deconvnet", unit="unit")
        subject = subject.keep(answers)
        rows, findings = [], []
        for i, projections in enumerate(answers.rows):
            panels = tuple(_make_panel(subject, i, t, one) for t, one in enumerate(projections))
            marks = tuple(Mark(one.box, str(one.target)) for one in projections)
            rows.append(Row(panels, Scene(subject.photos[i], subject.seen[i], marks)))
            findings.append(_describe(subject, i, projections))
        return Projections(subject.provenance(), tuple(rows), tuple(findings), partial=answers.partial)


@torch.no_grad()
def _choose_layers(model: Model) -> list[str]:
    """Of each size of map the last layer behind a ReLU, at most so many as a picture holds.

    A layer is taken to be behind a ReLU if noise makes no value negative and not all the same: ReLUs may be functional,
    and what pools and blocks make of them is as good."""
    grey = model.grey()  # (1, C, H, W)
    noise = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)).to(grey)
    sizes = find_spatial_layers(model, noise)
    with open_reader(model, sizes, keep=lambda _, output: output.aminmax()) as read:
        ranges = read(noise)
    behind = {name: size for name, size in sizes.items() if 0 <= ranges[name].min < ranges[name].max}
    return pick_last_of_sizes(behind, _MOST_LAYERS)


@dataclass(frozen=True)
class _Projection:
    """What a unit's activation comes to at the pixels.

    pattern: float32 (h, w, C), in units of the normalised input, cut to `box`. box: in px of the photograph."""

    target: Target
    activation: float
    pattern: npt.NDArray[np.float32]
    box: Box


def _project(subject: Subject, pairs: Sequence[tuple[int, Target]]) -> list[_Projection | VizcnnError]:
    """The projections of a batch of targets, each for the image of its number."""
    with torch.inference_mode(False), torch.enable_grad():
        images = pick_rows(subject.inputs, [i for i, _ in pairs]).requires_grad_()  # (B, C, H, W)
        units = _choose_positions(subject, images, [target for _, target in pairs])
        with DeconvnetRule() as rule:
            activations = score(subject, images, units)  # (B,)
        rule.check()
        values = activations.detach()
        (signals,) = torch.autograd.grad((activations * values).sum(), images)  # (B, C, H, W)
    return [_cut_to_box(subject, i, *one) for (i, _), *one in zip(pairs, units, values.tolist(), signals, strict=True)]


def _choose_positions(subject: Subject, images: Tensor, targets: Sequence[Target]) -> list[Target]:
    """For each channel, the target that is its strongest position in its image; any other target as it is."""
    layers = {unit.layer for target in targets if (unit := _find_channel(target))}
    if not layers:
        return [*targets]
    with torch.no_grad():
        activations = read_activations(subject.model, images, layers)
    return [_choose_position(target, activations, i) for i, target in enumerate(targets)]


def _find_channel(target: Target) -> Unit | None:
    """The channel of a layer that a target is; None for any other."""
    ((_, unit), *others) = target.terms
    return unit if isinstance(unit, Unit) and unit.layer != OUTPUT and not (unit.has_place or others) else None


def _choose_position(target: Target, activations: Mapping[str, Tensor], i: int) -> Target:
    """For a channel, the target that is its strongest position in image i."""
    unit = _find_channel(target)
    if unit is None:
        return target
    target(activations)  # raises an error where there is no such channel
    maps = activations[unit.layer]
    if maps.dim() != 4:
        return target
    y, x = divmod(int(maps[i, int(unit.channel)].argmax()), maps.shape[3])
    return Target(((target.terms[0][0], replace(unit, at=(y, x))),))


def _cut_to_box(subject: Subject, i: int, unit: Target, activation: float, signal: Tensor) -> _Projection | VizcnnError:
    """The projection of a signal (C, H, W) that has come back to the pixels of input i, cut to where it is not zero; or
    why there is none."""
    if not activation > 0:
        return _describe_inactive(unit, activation, subject.photos[i].name)
    if not signal.isfinite().all():
        return NonFiniteResult(f"the projection of {unit} holds NaN or infinity")
    box = Box.around(signal.abs().amax(0))
    if box is None:
        return _describe_lost(str(unit))
    # the signal is per unit of a pixel in [0, 1]; times std it is per unit of the normalised input
    pattern = signal * signal.new_tensor(subject.model.input.std)[:, None, None]  # (C, H, W)
    part = pattern[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)].permute(1, 2, 0)  # (h, w, C)
    return _Projection(unit, activation, part.float().cpu().numpy(), subject.in_photo(i, box))


def _describe_inactive(unit: Target, activation: float, image: str) -> DegenerateResult:
    """Why there is no projection of a unit that is not active."""
    return DegenerateResult(
        f"unit {unit} is not active in {image} (its value is {activation:g}), so there is nothing to project. Choose "
        "an active unit, behind its ReLU"
    )


def _describe_lost(unit: str) -> DegenerateResult:
    """Why there is no projection of a unit that is active."""
    return DegenerateResult(f"nothing of unit {unit} reaches the pixels: all signals on the way are negative")


def _make_panel(subject: Subject, i: int, t: int, one: _Projection) -> Panel:
    largest = float(np.abs(one.pattern).max())
    tile = one.pattern[:, :, 0] if one.pattern.shape[2] == 1 else one.pattern
    unit = next((u for _, u in one.target.terms if isinstance(u, Unit)), None)
    return Panel(
        key=f"image{i}.target{t}",
        title=str(one.target),
        values=tile[None],  # (1, h, w, C) or (1, h, w)
        channels=(int(unit.channel) if unit else 0,),
        titles=(f"{subject.short_quantity(t)} {format_score(one.activation, subject.quantity(t))}",),
        limits=((-largest, largest),),
        meaning="projection",
        display=subject.model.input.display,
    )


def _describe(subject: Subject, i: int, projections: Sequence[_Projection]) -> str:
    """One sentence: how strong the units are, and where their patterns lie."""
    said = list[str]()
    for t, one in enumerate(projections[:_MOST_SAID]):
        strength = f"{subject.short_quantity(t)} {format_score(one.activation, subject.quantity(t))}"
        lies = "in" if said else "lies in"
        said.append(f"of {one.target} ({strength}) {lies} the {subject.place(i, one.box)}")
    rest = len(projections) - len(said)
    more = [f"{rest} more {'is' if rest == 1 else 'are'} drawn"] * (rest > 0)
    return f"{subject.photos[i].name}: the pattern {'; '.join([*said, *more])}"
