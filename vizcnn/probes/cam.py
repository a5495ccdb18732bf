"""Class activation maps: which regions of a late layer speak for the target?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
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

_PRECISE = torch.float64  # in half precision, squares and cubes of gradients would underflow
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
    enlarged (bilinear, align_corners=False) to the input. With the layer's activations A and g = d target / d A:

    cam: exact evidence, where global average pooling and one linear layer follow; the map's mean plus the bias is the
    logit. Signed. Refused where something else follows.
    grad-cam: relu(sum of A weighted by the mean of g). grad-cam++: weighted by the mean of alpha relu(g), alpha =
    g^2 / (2 g^2 + sum(A) g^3). layer-cam: relu(sum of relu(g) A), place by place. score-cam: weighted by the softmax
    over channels of the target when the image is shown through that channel only. eigen-cam: relu(A v), v the first
    right singular vector of A as positions x channels, with the sign that makes the sum of A v positive; the target
    plays no part.

    The box marks the region around the highest value in which all values exceed a fifth of it, as Zhou et al. 2016
    find objects.

    Papers: arXiv:1512.04150, arXiv:1610.02391, arXiv:1710.11063, doi:10.1109/TIP.2021.3089943, arXiv:1910.01279,
    arXiv:2008.00299. Raises LayerNotFound, ParameterError (a layer without space), DegenerateResult, NotDifferentiable.
    """

    paper: ClassVar[str] = "see the method"

    method: Method = param("grad-cam", "How the channels are weighted.")
    layer: str | None = param(None, "Dotted name of the layer; by default the last with more than one position.")
    batch: int = param(16, "Images per forward pass (score-cam).", min=1)

    def compute(self, subject: Subject) -> Heatmap:
        warn_of_softmax(subject)
        layer = self.layer or find_last_spatial_layer(subject.model, subject.inputs[:1])
        size = (int(subject.inputs.shape[2]), int(subject.inputs.shape[3]))

        def make_map(image: Tensor, target: Target) -> Map:
            small = self._weigh_channels(subject, image, target, layer)  # (h, w)
            large = F.interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0, 0]  # (H, W)
            return Map(large, find_strongest_region(large), f"{self.method} at {layer} is strongest")

        return heatmap(
            subject,
            each_map(subject, one_by_one(make_map), label=self.method),
            meaning=lambda quantity: f"{self.method} at {layer}" + f", share of {quantity}" * (self.method == "cam"),
            signed=self.method == "cam",
            paper=_PAPERS[self.method],
            details={"method": self.method, "layer": layer},
        )

    def _weigh_channels(self, subject: Subject, image: Tensor, target: Target, layer: str) -> Tensor:
        """The map at the layer's own size, (h, w)."""
        if self.method == "score-cam":
            return _score_cam(subject, image, target, layer, self.batch)
        activations, gradient = _compute_gradient(subject, image, target, layer)  # (C, h, w) each
        if self.method == "cam":
            _require_average_pooling(subject, image, target, layer, activations, gradient)
        if self.method == "grad-cam++":
            _warn_of_small_divisors(layer, activations, gradient)
        return _FORMULAE[self.method](activations, gradient)


def find_last_spatial_layer(model: Model, image: Tensor) -> str:
    """The last layer, in the order of running, whose output has more than one position. Raises DegenerateResult."""
    layers = list(find_spatial_layers(model, image))
    if not layers:
        raise DegenerateResult(
            f"no layer of {model.name} gives a map (N, C, H, W) of more than one position, so there is none to make"
        )
    return layers[-1]


def _compute_gradient(subject: Subject, image: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    """The layer's activations A for an image (1, C, H, W), and d target / d A, each (C, h, w)."""
    with tap_layer(subject.model, layer, image) as tapped:
        target_score = score(subject, image, target, f"layer {layer!r}")  # (1,)
    activations = _check_spatial(layer, tapped.get(layer))  # (1, C, h, w)
    (gradient,) = torch.autograd.grad(target_score.sum(), activations, allow_unused=True)
    if gradient is None:
        raise NotDifferentiable(
            f"target {target} is computed before layer {layer!r} runs last. Choose an earlier layer"
        )
    return activations.detach()[0].to(_PRECISE), gradient[0].to(_PRECISE)


def _check_spatial(layer: str, activations: Tensor | None) -> Tensor:
    """The activations, checked to be (1, C, h, w) with more than one position."""
    if activations is None:
        raise ParameterError(f"layer {layer!r} did not run for this input. Choose another")
    if activations.dim() != 4 or activations.shape[2] * activations.shape[3] == 1:
        raise ParameterError(
            f"layer {layer!r} has no space: its output is {describe_activations(activations)}. Choose one with "
            "(N, C, H, W), or leave the layer out"
        )
    return activations


def _cam(activations: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.sum((1, 2), keepdim=True) * activations).sum(0)


def _grad_cam(activations: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((1, 2), keepdim=True) * activations).sum(0).relu()


def _grad_cam_plus_plus(activations: Tensor, gradient: Tensor) -> Tensor:
    square, cube = gradient**2, gradient**3
    divisor = 2 * square + activations.sum((1, 2), keepdim=True) * cube  # (C, h, w)
    alpha = torch.where(divisor != 0, square / torch.where(divisor != 0, divisor, torch.ones_like(divisor)), 0.0)
    return ((alpha * gradient.relu()).sum((1, 2), keepdim=True) * activations).sum(0).relu()


def _warn_of_small_divisors(layer: str, activations: Tensor, gradient: Tensor) -> None:
    """Warn where grad-cam++ has weights that mean little.

    alpha = 1 / (2 + sum(A) g) matters where g > 0. Behind a ReLU, sum(A) >= 0, so alpha is at most 1/2 there; for other
    activations the divisor can come near zero."""
    divisors = (2 + activations.sum((1, 2), keepdim=True) * gradient)[gradient > 0]
    if (divisors < 1).any():
        warnings.warn(
            f"grad-cam++ divides by 2 + sum(A) g, which is as low as {float(divisors.min()):.3g} at layer {layer!r}: "
            "its activations add up to less than zero, and the weights then mean little. Name a layer behind a ReLU, "
            "or use grad-cam",
            VizcnnWarning,
            stacklevel=2,
        )


def _layer_cam(activations: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.relu() * activations).sum(0).relu()


def _eigen_cam(activations: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG001 - the target plays no part in it
    positions = activations.flatten(1).T  # (h w, C)
    _, _, directions = torch.linalg.svd(positions, full_matrices=False)  # not centred
    projection = positions @ directions[0]  # (h w,)
    if projection.sum() < 0:
        projection = -projection  # a singular vector has no sign of its own
    small: Tensor = projection.view(activations.shape[1:]).relu()  # (h, w)
    return small


_FORMULAE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "layer-cam": _layer_cam,
    "eigen-cam": _eigen_cam,
}


def _require_average_pooling(
    subject: Subject, image: Tensor, target: Target, layer: str, activations: Tensor, gradient: Tensor
) -> None:
    """Refuse a layer for which CAM is not exact: what follows must be linear and treat all positions alike."""
    model = subject.model
    with torch.no_grad():
        target_score = float(score_images(model, image, [target]))
        with hook_layer(model.layer(layer), lambda _module, _inputs, output: torch.zeros_like(output)):
            bias = float(score_images(model, image, [target]))  # what is left when the layer gives nothing
    contributions = gradient * activations  # (C, h, w); they add up to the score less the bias if all is linear
    missing = abs(target_score - bias - float(contributions.sum()))
    uneven = (gradient - gradient.mean((1, 2), keepdim=True)).abs().max()
    tolerance = max(1e-3, 8 * torch.finfo(image.dtype).eps)
    if uneven > tolerance * gradient.abs().max() or missing > tolerance * float(contributions.abs().sum()):
        raise DegenerateResult(
            f"CAM needs global average pooling and one linear layer behind {layer!r}, and {model.name} has "
            f"something else there. Use grad-cam, or the layer directly before the pooling"
        )


@torch.no_grad()
def _score_cam(subject: Subject, image: Tensor, target: Target, layer: str, batch: int) -> Tensor:
    model = subject.model
    activations = _check_spatial(layer, read_activations(model, image, [layer])[layer])[0].to(_PRECISE)  # (C, h, w)
    background = image.new_tensor(model.input.mean).view(1, -1, 1, 1)

    def show_through(channels: Indices) -> Tensor:
        small = activations[torch.from_numpy(channels).to(activations.device), None]  # (B, 1, h, w)
        masks = F.interpolate(small, image.shape[2:], mode="bilinear", align_corners=False)  # (B, 1, H, W)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=1e-12)
        return background + (image - background) * masks.to(image.dtype)  # (B, C, H, W)

    channels = np.arange(len(activations))
    batches = score_batches(model, show_through, channels, [target], batch=batch, layout=subject.layout, shown=False)
    scores = torch.from_numpy(np.concatenate([scores for _, scores in batches])[:, 0]).to(activations)  # (C,)
    small_map: Tensor = (scores.softmax(0)[:, None, None] * activations).sum(0)  # (h, w)
    return small_map.relu()


def find_strongest_region(values: Tensor, share: float = 0.2) -> Box | None:
    """The box, in px, around the connected region with the highest value of a map (H, W), in which all values exceed
    `share` of that value; None where no value is positive."""
    if not values.max() > 0:
        return None
    high = (values > share * values.max()).float()[None]  # (1, H, W)
    region = torch.zeros_like(high)
    region.view(-1)[values.argmax()] = 1
    while True:  # let the region grow by one pixel in all directions, until there is no high value next to it
        grown = F.max_pool2d(region, 3, 1, 1) * high
        if torch.equal(grown, region):
            return Box.around(region[0])
        region = grown
