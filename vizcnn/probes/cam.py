"""Class activation maps: which regions of a late layer speak for the target?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.errors import DegenerateResult, NotDifferentiable, ParameterError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.models.determinism import score_images
from vizcnn.models.layers.axes import find_spatial_layers
from vizcnn.models.layers.capture import hook_layer, read_activations, tap_layer
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, score_batches
from vizcnn.models.targets import Target, describe_activations
from vizcnn.probing.attribution import Map, each_map, heatmap, one_by_one, score, warn_of_softmax
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap

Method = Literal["cam", "grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam"]

_PRECISE = torch.float64  # squares and cubes of half-precision gradients would underflow
_PAPERS = {
    "cam": "Zhou et al. 2016, arXiv:1512.04150",
    "grad-cam": "Selvaraju et al. 2017, arXiv:1610.02391",
    "grad-cam++": "Chattopadhay et al. 2018, arXiv:1710.11063",
    "layer-cam": "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943",
    "score-cam": "Wang et al. 2020, arXiv:1910.01279",
    "eigen-cam": "Muhammad & Yeasin 2020, arXiv:2008.00299",
}


class Cam(Probe[Heatmap]):
    """Which regions speak for the answer? Class activation maps.

    The channels of a late layer are added up with weights that say how much each speaks for the target; the sum is
    enlarged (bilinear, align_corners=False) to the input. With A the layer's channels, g = d target / d A:

    cam: exact evidence, where global average pooling and one linear layer follow; the map's mean plus the bias is the
    logit. Signed. Refused where something else follows.
    grad-cam: relu(sum of A weighted by the mean of g). grad-cam++: weighted by the mean of alpha relu(g), alpha =
    g^2 / (2 g^2 + sum(A) g^3). layer-cam: relu(sum of relu(g) A), place by place. score-cam: weighted by the softmax
    over channels of the target when the image is shown through that channel only. eigen-cam: relu(A v), v the first
    right singular vector of A as positions x channels, with the sign that makes the sum of A v positive; the target
    plays no part.

    Marked is the region around the highest value that stays above a fifth of it, as Zhou et al. 2016 find objects.

    Papers: arXiv:1512.04150, arXiv:1610.02391, arXiv:1710.11063, doi:10.1109/TIP.2021.3089943, arXiv:1910.01279,
    arXiv:2008.00299. Raises LayerNotFound, ParameterError (a layer without space), DegenerateResult, NotDifferentiable.
    """

    paper: ClassVar[str] = "see the method"

    method: Method = param("grad-cam", "How the channels are weighted.")
    layer: str | None = param(None, "Dotted name of the layer; by default the last with more than one position.")
    batch: int = param(16, "Images per forward pass (score-cam).", min=1)

    def compute(self, subject: Subject) -> Heatmap:
        warn_of_softmax(subject)
        layer = self.layer or last_spatial(subject.model, subject.inputs[:1])
        size = (int(subject.inputs.shape[2]), int(subject.inputs.shape[3]))

        def one(image: Tensor, target: Target) -> Map:
            small = self._map(subject, image, target, layer)  # (h, w)
            large = F.interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0, 0]  # (H, W)
            return Map(large, strongest_region(large), f"{self.method} at {layer} is strongest")

        return heatmap(
            subject,
            each_map(subject, one_by_one(one), label=self.method),
            meaning=lambda quantity: f"{self.method} at {layer}" + f", share of {quantity}" * (self.method == "cam"),
            signed=self.method == "cam",
            paper=_PAPERS[self.method],
            details={"method": self.method, "layer": layer},
        )

    def _map(self, subject: Subject, image: Tensor, target: Target, layer: str) -> Tensor:
        """The map at the layer's own size, (h, w)."""
        if self.method == "score-cam":
            return _score_cam(subject, image, target, layer, self.batch)
        values, gradient = _values_and_gradient(subject, image, target, layer)  # (C, h, w) each
        if self.method == "cam":
            _refuse_no_average(subject, image, target, layer, values, gradient)
        if self.method == "grad-cam++":
            _warn_of_quotients(layer, values, gradient)
        return _FORMULAE[self.method](values, gradient)


def last_spatial(model: Model, image: Tensor) -> str:
    """The layer that runs last among those whose output has more than one position. Raises DegenerateResult."""
    spatial = list(find_spatial_layers(model, image))
    if not spatial:
        raise DegenerateResult(
            f"no layer of {model.name} gives a map (N, C, H, W) of more than one position, so there is none to make"
        )
    return spatial[-1]


def _values_and_gradient(subject: Subject, image: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    with tap_layer(subject.model, layer, image) as seen:
        number = score(subject, image, target, f"layer {layer!r}")
    values = _spatial(layer, seen.get(layer))  # (1, C, h, w)
    (gradient,) = torch.autograd.grad(number.sum(), values, allow_unused=True)
    if gradient is None:
        raise NotDifferentiable(
            f"target {target} is computed before layer {layer!r} runs last. Choose an earlier layer"
        )
    return values.detach()[0].to(_PRECISE), gradient[0].to(_PRECISE)


def _spatial(layer: str, values: Tensor | None) -> Tensor:
    if values is None:
        raise ParameterError(f"layer {layer!r} did not run for this input. Choose another")
    if values.dim() != 4 or values.shape[2] * values.shape[3] == 1:
        raise ParameterError(
            f"layer {layer!r} has no space: its output is {describe_activations(values)}. Choose one with "
            "(N, C, H, W), or leave the layer out"
        )
    return values


def _cam(values: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.sum((1, 2), keepdim=True) * values).sum(0)


def _grad_cam(values: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((1, 2), keepdim=True) * values).sum(0).relu()


def _grad_cam_plus_plus(values: Tensor, gradient: Tensor) -> Tensor:
    square, cube = gradient**2, gradient**3
    below = 2 * square + values.sum((1, 2), keepdim=True) * cube  # (C, h, w)
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, torch.ones_like(below)), 0.0)
    return ((alpha * gradient.relu()).sum((1, 2), keepdim=True) * values).sum(0).relu()


def _warn_of_quotients(layer: str, values: Tensor, gradient: Tensor) -> None:
    """The formula was made for activations behind a ReLU: then alpha = 1 / (2 + sum(A) g) is at most 1/2 wherever it
    counts (g > 0)."""
    below = (2 + values.sum((1, 2), keepdim=True) * gradient)[gradient > 0]
    if (below < 1).any():
        warnings.warn(
            f"grad-cam++ divides by 2 + sum(A) g, which is as low as {float(below.min()):.3g} at layer {layer!r}: its "
            "activations add up to less than zero, and the weights then mean little. Name a layer behind a ReLU, or "
            "use grad-cam",
            VizcnnWarning,
            stacklevel=2,
        )


def _layer_cam(values: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.relu() * values).sum(0).relu()


def _eigen_cam(values: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG001 - the target plays no part in it
    positions = values.flatten(1).T  # (h w, C)
    _, _, directions = torch.linalg.svd(positions, full_matrices=False)  # not centred
    projected = positions @ directions[0]  # (h w,)
    upright = -projected if projected.sum() < 0 else projected  # a singular vector has no sign of its own
    small: Tensor = upright.view(values.shape[1:]).relu()  # (h, w)
    return small


_FORMULAE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "layer-cam": _layer_cam,
    "eigen-cam": _eigen_cam,
}


def _refuse_no_average(
    subject: Subject, image: Tensor, target: Target, layer: str, values: Tensor, gradient: Tensor
) -> None:
    """CAM is exact only if what follows the layer is linear and treats all positions alike."""
    with torch.no_grad(), _silenced(subject.model, layer):
        bias = float(score_images(subject.model, image, [target]))
    with torch.no_grad():
        whole = float(score_images(subject.model, image, [target]))
    uneven = (gradient - gradient.mean((1, 2), keepdim=True)).abs().max()
    explained = float((gradient * values).sum())
    near = max(1e-3, 8 * torch.finfo(image.dtype).eps)
    missing = abs(whole - bias - explained)
    if uneven > near * gradient.abs().max() or missing > near * float((gradient * values).abs().sum()):
        raise DegenerateResult(
            f"CAM needs global average pooling and one linear layer behind {layer!r}, and {subject.model.name} has "
            f"something else there. Use grad-cam, or the layer directly before the pooling"
        )


@contextmanager
def _silenced(model: Model, layer: str) -> Iterator[None]:
    """While the context is open, the layer puts out zeros."""
    with hook_layer(model.layer(layer), lambda _module, _inputs, output: torch.zeros_like(output)):
        yield


@torch.no_grad()
def _score_cam(subject: Subject, image: Tensor, target: Target, layer: str, batch: int) -> Tensor:
    values = _spatial(layer, read_activations(subject.model, image, [layer])[layer])[0].to(_PRECISE)  # (C, h, w)
    ground = image.new_tensor(subject.model.input.mean).view(1, -1, 1, 1)

    def shown(channels: Indices) -> Tensor:
        chosen = values[torch.from_numpy(channels).to(values.device)]
        masks = F.interpolate(chosen[:, None], image.shape[2:], mode="bilinear", align_corners=False)  # (B, 1, H, W)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=1e-12)
        return ground + (image - ground) * masks.to(image.dtype)  # (B, C, H, W)

    model, layout, channels = subject.model, subject.layout, np.arange(len(values))
    batches = score_batches(model, shown, channels, [target], batch=batch, layout=layout, shown=False)
    scores = torch.from_numpy(np.concatenate([scores for _, scores in batches])[:, 0]).to(values)  # (C,)
    weighted: Tensor = (scores.softmax(0)[:, None, None] * values).sum(0)  # (h, w)
    return weighted.relu()


def strongest_region(values: Tensor, share: float = 0.2) -> Box | None:
    """The box, in px, of the connected region around the highest value of a map (H, W) in which all values exceed
    `share` of it; None where no value is positive."""
    if not values.max() > 0:
        return None
    high = (values > share * values.max()).float()[None]  # (1, H, W)
    region = torch.zeros_like(high)
    region.view(-1)[values.argmax()] = 1
    while True:
        grown = F.max_pool2d(region, 3, 1, 1) * high
        if torch.equal(grown, region):
            break
        region = grown
    return Box.around(region[0])
