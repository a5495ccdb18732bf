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
    maximum came from, rectified, filtered with the transposed kernels. Where the maxima of overlapping windows are the
    same pixel, the strongest value is placed there, once (a gradient would add them up). A target `LAYER:CHANNEL`
    takes the channel's strongest position in the image, as the paper does; `LAYER:CHANNEL@Y,X` one neuron; a class its
    logit.

    The projection is signed, in units of the normalised input, and drawn with mid-grey at zero. It is cut to the pixels
    that it reaches; their box is drawn on the photograph. Batch normalisation is passed by its scale, as in a gradient.

    Paper: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.
    Raises DegenerateResult (a unit that is not active, activations other than ReLU), TargetError, LayerNotFound.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

    def compute(self, subject: Subject) -> ImageGrid:
        total = sum(len(row) for row in subject.targets)
        rows, findings = [], []
        with progress.bar(total, "deconvnet", "unit", shown=subject.progress) as bar:
            for i, targets in enumerate(subject.targets):
                projections = [_project(subject, i, target) for target in targets]
                panels = tuple(_make_panel(i, t, one) for t, one in enumerate(projections))
                marks = tuple(Mark(one.box, str(one.target)) for one in projections)
                rows.append(Row(panels, Scene(subject.photos[i], subject.seen[i], marks)))
                findings += [_describe(subject, i, one) for one in projections]
                bar.update(len(projections))
        return ImageGrid(subject.provenance(), tuple(rows), tuple(findings))


@dataclass(frozen=True)
class _Projection:
    """What a unit's activation comes to at the pixels.

    pattern: float32 (h, w, C), in units of the normalised input, cut to `box`. box: in px of the photograph."""

    target: Target
    activation: float
    pattern: npt.NDArray[np.float32]
    box: Box


def _project(subject: Subject, i: int, target: Target) -> _Projection:
    with torch.inference_mode(False), torch.enable_grad():
        image = subject.inputs[i].clone()[None].requires_grad_()  # (1, C, H, W)
        unit = _choose_position(subject, image, target)
        with DeconvnetRule() as rule:
            activation = score(subject, image, unit)  # (1,)
        rule.check()
        value = activation.detach()
        if not value > 0:
            raise DegenerateResult(
                f"unit {unit} is not active in {subject.photos[i].name} (its value is {float(value):g}), so "
                "there is nothing to project. Choose an active unit, behind its ReLU"
            )
        (signal,) = torch.autograd.grad((activation * value).sum(), image)
    return _cut_to_box(subject, i, unit, float(value), signal[0])


def _choose_position(subject: Subject, image: Tensor, target: Target) -> Target:
    """For a channel, the target that is its strongest position; any other target as it is."""
    ((weight, unit), *others) = target.terms
    if others or not isinstance(unit, Unit) or unit.layer == OUTPUT or unit.at is not None:
        return target
    with torch.no_grad():
        activations = read_activations(subject.model, image, [unit.layer])[unit.layer]
    target({unit.layer: activations})  # raises an error where there is no such channel
    if activations.dim() != 4:
        return target
    y, x = divmod(int(activations[0, int(unit.channel)].argmax()), activations.shape[3])
    return Target(((weight, replace(unit, at=(y, x))),))


def _cut_to_box(subject: Subject, i: int, unit: Target, activation: float, signal: Tensor) -> _Projection:
    """The projection of a signal (C, H, W) that has come back to the pixels of input i, cut to where it is not zero."""
    if not signal.isfinite().all():
        raise NonFiniteResult(f"the projection of {unit} holds NaN or infinity")
    box = Box.around(signal.abs().amax(0))
    if box is None:
        raise DegenerateResult(f"nothing of unit {unit} reaches the pixels: all signals on the way are negative")
    # the signal is per unit of a pixel in [0, 1]; times std it is per unit of the normalised input
    pattern = signal * signal.new_tensor(subject.model.input.std)[:, None, None]  # (C, H, W)
    part = pattern[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)].permute(1, 2, 0)  # (h, w, C)
    return _Projection(unit, activation, part.float().cpu().numpy(), subject.in_photo(i, box))


def _make_panel(i: int, t: int, one: _Projection) -> Panel:
    largest = float(np.abs(one.pattern).max())
    tile = one.pattern if one.pattern.shape[2] == 3 else one.pattern[:, :, 0]
    unit = next((u for _, u in one.target.terms if isinstance(u, Unit)), None)
    return Panel(
        key=f"image{i}.target{t}",
        title=str(one.target),
        values=tile[None],  # (1, h, w, 3) or (1, h, w)
        channels=(int(unit.channel) if unit else 0,),
        titles=(f"activation {one.activation:.2f}",),
        limits=((-largest, largest),),
        meaning="projection",
    )


def _describe(subject: Subject, i: int, one: _Projection) -> str:
    name, place = subject.photos[i].name, subject.place(i, one.box)
    return f"{name}: {one.target} is active with {one.activation:.2f}; its pattern lies in the {place}"
