"""Deconvnet: what pattern in the image made a unit fire?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import DegenerateResult, NonFiniteResult
from vizcnn.geometry import Box
from vizcnn.models.backward import DeconvnetRule
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.targets import OUTPUT, Target, Unit
from vizcnn.probing.attribution import score
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.results import ImageGrid, Mark, Panel, Row, Scene


class Deconvnet(Probe[ImageGrid]):
    """Which pattern in the image made this unit fire? Its activation, projected back to pixels.

    All other activations of the layer are set to zero, and the unit's is passed backwards: unpooled to where each
    maximum came from, rectified, filtered with the transposed kernels. Where overlapping windows chose the same pixel,
    the strongest value is placed there, once (a gradient would add them up). A target `LAYER:CHANNEL` takes the
    channel's strongest position in the image, as the paper does; `LAYER:CHANNEL@Y,X` one neuron; a class its logit.

    The projection is in units of the normalised input, signed, mid-grey at zero, cut to the pixels that it reaches;
    their box is drawn on the photograph. Batch normalisation is passed by its scale, as in a gradient.

    Paper: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.
    Raises DegenerateResult (a unit that is not active, activations other than ReLU), TargetError, LayerNotFound.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

    def compute(self, subject: Subject) -> ImageGrid:
        total = sum(len(row) for row in subject.targets)
        rows, findings = [], []
        with progress.bar(total, "deconvnet", "unit", shown=subject.progress) as bar:
            for i, targets in enumerate(subject.targets):
                found = [_projected(subject, i, target) for target in targets]
                rows.append(_row(subject, i, found))
                findings += [_finding(subject, i, one) for one in found]
                bar.update(len(found))
        return ImageGrid(subject.provenance(), tuple(rows), tuple(findings))


@dataclass(frozen=True)
class _Projection:
    """pattern: float32 (h, w, C) in normalised units, cut to `box`, which is in px of the photograph."""

    target: Target
    activation: float
    pattern: npt.NDArray[np.float32]
    box: Box


def _projected(subject: Subject, i: int, target: Target) -> _Projection:
    with torch.inference_mode(False), torch.enable_grad():
        image = subject.inputs[i].clone()[None].requires_grad_()  # (1, C, H, W)
        unit = _at_its_strongest(subject, image, target)
        with DeconvnetRule() as rule:
            number = score(subject, image, unit)
        rule.check()
        if not number > 0:
            raise DegenerateResult(
                f"unit {unit} is not active in {subject.photos[i].name} (its value is {float(number.detach()):g}), so "
                "there is nothing to project. Choose an active unit, behind its ReLU"
            )
        (back,) = torch.autograd.grad(number, image, number.detach())
    return _cut(subject, i, unit, float(number.detach()), back[0])


def _at_its_strongest(subject: Subject, image: Tensor, target: Target) -> Target:
    """A channel's target narrowed down to the position where the channel is strongest."""
    ((weight, unit), *others) = target.terms
    if others or not isinstance(unit, Unit) or unit.layer == OUTPUT or unit.at is not None:
        return target
    with torch.no_grad():
        values = read_activations(subject.model, image, [unit.layer])[unit.layer]
    target(dict.fromkeys([unit.layer], values))  # says so if there is no such channel
    if values.dim() != 4:
        return target
    y, x = divmod(int(values[0, int(unit.channel)].argmax()), values.shape[3])
    return Target(((weight, replace(unit, at=(y, x))),))


def _cut(subject: Subject, i: int, unit: Target, activation: float, back: Tensor) -> _Projection:
    if not back.isfinite().all():
        raise NonFiniteResult(f"the projection of {unit} holds NaN or infinity")
    box = Box.around(back.abs().amax(0))
    if box is None:
        raise DegenerateResult(f"nothing of unit {unit} reaches the pixels: all signals on the way are negative")
    pattern = back * back.new_tensor(subject.model.input.std)[:, None, None]  # d / d pixel to units of the input
    part = pattern[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)].permute(1, 2, 0)  # (h, w, C)
    return _Projection(unit, activation, part.float().cpu().numpy(), subject.in_photo(i, box))


def _row(subject: Subject, i: int, found: list[_Projection]) -> Row:
    panels = tuple(_panel(i, t, one) for t, one in enumerate(found))
    marks = tuple(Mark(one.box, str(one.target)) for one in found)
    return Row(panels, Scene(subject.photos[i], subject.seen[i], marks))


def _panel(i: int, t: int, one: _Projection) -> Panel:
    end = float(np.abs(one.pattern).max())
    tile = one.pattern if one.pattern.shape[2] == 3 else one.pattern[:, :, 0]
    unit = next((u for _, u in one.target.terms if isinstance(u, Unit)), None)
    return Panel(
        key=f"image{i}.target{t}",
        title=str(one.target),
        values=tile[None],  # (1, h, w, 3) or (1, h, w)
        channels=(int(unit.channel) if unit else 0,),
        titles=(f"activation {one.activation:.2f}",),
        limits=((-end, end),),
        meaning="projection",
    )


def _finding(subject: Subject, i: int, one: _Projection) -> str:
    name = subject.photos[i].name
    return (
        f"{name}: {one.target} is active with {one.activation:.2f}; its pattern lies in the {subject.place(i, one.box)}"
    )
