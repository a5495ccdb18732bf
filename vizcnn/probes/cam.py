"""Class activation maps: which regions of a late layer speak for the target?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.errors import NotDifferentiable, ParameterError, UnsuitableNetwork, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.models.batches import default_batch
from vizcnn.models.determinism import score_each
from vizcnn.models.layers.capture import hook_layer, read_activations, tap_layer
from vizcnn.models.layers.last import find_last_spatial_layer
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, score_batches
from vizcnn.models.targets import Target
from vizcnn.models.terms import describe_activations
from vizcnn.probing.attribution import (
    Map,
    compare_sums,
    each_map,
    find_peak,
    heatmap,
    require_gradient,
    score_inputs,
    warn_of_softmax,
)
from vizcnn.probing.facts import Facts, refuse_empty, require_answer, require_run
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap

Method = Literal["cam", "grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam"]

LEVEL = 0.2
"""Which share of a map's maximum bounds the region that the box marks: a fifth, as of Zhou et al. 2016.

Measured by intersection over union with the boxes of Tiny ImageNet, for `tiny` and MobileNetV2: of all levels a fifth
loses least to the best of its row. Objects smaller than half of the image are fitted a little better by 0.3 or 0.4, by
0.05 at most. See `benchmarks/README.md`."""

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

        cam         the sum of A weighted by the linear layer's weights, signed
        grad-cam    relu(sum of A weighted by the mean of g)
        grad-cam++  relu(sum of A weighted by the sum of alpha relu(g)),
                    alpha = g^2 / (2 g^2 + sum(A) g^3)
        layer-cam   relu(sum of relu(g) A), place by place
        score-cam   relu(sum of A weighted by the softmax over channels of
                    the target, the image shown through that channel only)
        eigen-cam   relu(A v), v the first right singular vector of A as
                    positions x channels, the sum of A v positive

    cam is exact evidence: its mean plus the bias is the logit. It is refused where anything but global average pooling
    and one linear layer follows. In eigen-cam the target plays no part.

    The sentence says where the map is strongest, by a tight place around its highest value. The box marks the region
    around that value in which all values exceed a fifth of it, as Zhou et al. 2016 find objects, see LEVEL.

        >>> import vizcnn
        >>> result = vizcnn.Cam(method="layer-cam")(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.values.shape, result.signed
        ((1, 1, 64, 64), False)

    Papers: arXiv:1512.04150, arXiv:1610.02391, arXiv:1710.11063, doi:10.1109/TIP.2021.3089943, arXiv:1910.01279,
    arXiv:2008.00299. Raises LayerNotFound, ParameterError (a layer without space), DegenerateResult, NotDifferentiable.
    """

    paper: ClassVar[str] = "see the method"
    makes_maps: ClassVar[bool] = True

    method: Method = param("grad-cam", "How the channels are weighted.")
    layer: str | None = param(None, "Dotted name of the layer; by default the last with more than one position.")
    batch: int | None = param(None, "Images per run; by default by their size. Changes memory and time only.", min=1)

    def rehearse(self, facts: Facts) -> str:
        asked = require_answer(facts)
        layer = self.layer or facts.model.default_layer or find_last_spatial_layer(facts.model, facts.image)
        slopes = require_run(facts)
        if self.method == "score-cam" or layer != slopes.layer:
            return layer  # the run backward was not about this
        activations = _check_spatial(layer, slopes.activations).to(_PRECISE)  # (1, C, h, w)
        if not slopes.is_differentiable:
            require_gradient(slopes.score, [asked], f"layer {layer!r}")
        if slopes.gradients is None:
            _refuse_earlier(asked, layer)
        else:
            refuse_empty(facts, _FORMULAE[self.method](activations, slopes.gradients.to(_PRECISE)))
        return layer

    def compute(self, subject: Subject) -> Heatmap:
        warn_of_softmax(subject)
        if self.method == "score-cam":  # which sees altered images only
            subject = subject.run()
        layer = self._choose_layer(subject)

        def make_maps(images: Tensor, targets: Sequence[Target]) -> list[Map]:
            small = self._weigh_channels(subject, images, targets, layer)  # (B, h, w)
            large = F.interpolate(small[:, None], subject.size, mode="bilinear", align_corners=False)[
                :, 0
            ].cpu()  # (B, H, W)
            return [self._mark_region(one, layer) for one in large]

        return heatmap(
            subject,
            each_map(subject, make_maps, label=self.method, batch=self._choose_batch(subject, layer)),
            meaning=lambda quantity: f"{self.method} at {layer}" + f", share of {quantity}" * (self.method == "cam"),
            signed=self.method == "cam",
            paper=_PAPERS[self.method],
            details={"method": self.method, "layer": layer},
        )

    def measure_missing(self, subject: Subject, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
        """Of `cam`, whose map has the target's score less the bias as its mean."""
        if self.method != "cam":
            return None
        layer = self._choose_layer(subject)
        biases = [
            _score_without(subject.model, image[None], [*targets], layer)
            for image, targets in zip(subject.inputs, subject.targets, strict=True)
        ]
        promised = subject.scores - torch.stack(biases).double().cpu().numpy()  # (N, T)
        return compare_sums(values.mean((2, 3), dtype=np.float64), promised, subject.scores)

    def _choose_layer(self, subject: Subject) -> str:
        return self.layer or subject.model.default_layer or find_last_spatial_layer(subject.model, subject.inputs[:1])

    def _mark_region(self, values: Tensor, layer: str) -> Map:
        """A map (H, W) with the box of its strongest region; the sentence names the tighter place of its maximum."""
        place = find_peak(values)
        return Map(
            values,
            find_strongest_region(values),
            f"{self.method} at {layer} is {'strongest' if place else 'above zero nowhere'}",
            place=place,
            mark=f"the region above {LEVEL:.0%} of the maximum",
        )

    def _choose_batch(self, subject: Subject, layer: str) -> int | None:
        """How many images to make maps of at once; for score-cam no more than whose channels share a run, so that
        Ctrl-C loses little."""
        if self.method != "score-cam":
            return self.batch
        with torch.no_grad():
            activations = _check_spatial(layer, read_activations(subject.model, subject.inputs[:1], [layer])[layer])
        return max(1, (self.batch or default_batch(subject.size, subject.inputs.device)) // activations.shape[1])

    def _weigh_channels(self, subject: Subject, images: Tensor, targets: Sequence[Target], layer: str) -> Tensor:
        """The maps at the layer's own size, (B, h, w), for images (B, C, H, W) and the target of each."""
        if self.method == "score-cam":
            return _score_cam(subject, images, targets, layer, self.batch)
        activations, gradients = _compute_gradients(subject, images, targets, layer)  # (B, C, h, w) each
        if self.method == "cam":
            _require_average_pooling(subject, images, targets, layer, activations, gradients)
        if self.method == "grad-cam++":
            _warn_of_small_divisors(layer, activations, gradients)
        return _FORMULAE[self.method](activations, gradients)


def _compute_gradients(
    subject: Subject, images: Tensor, targets: Sequence[Target], layer: str
) -> tuple[Tensor, Tensor]:
    """A layer's activations A for images (B, C, H, W), and d target / d A for the target of each; (B, C, h, w) both."""
    with tap_layer(subject.model, layer, images) as tapped:
        scores = score_inputs(subject, images, targets, f"layer {layer!r}")  # (B,)
    activations = _check_spatial(layer, tapped.get(layer))  # (B, C, h, w)
    (gradients,) = torch.autograd.grad(scores.sum(), activations, allow_unused=True)
    if gradients is None:
        _refuse_earlier(targets[0], layer)
    return activations.detach().to(_PRECISE), gradients.to(_PRECISE)


def _refuse_earlier(target: Target, layer: str) -> NoReturn:
    raise NotDifferentiable(f"target {target} is computed before layer {layer!r} runs last. Choose an earlier layer")


def _check_spatial(layer: str, activations: Tensor | None) -> Tensor:
    """The activations, checked to be (B, C, h, w) with more than one position."""
    if activations is None:
        raise ParameterError(f"layer {layer!r} did not run for this input. Choose another")
    if activations.dim() != 4 or activations.shape[2] * activations.shape[3] == 1:
        raise ParameterError(
            f"layer {layer!r} has no space: its output is {describe_activations(activations)}. Choose one with "
            "(N, C, H, W), or leave the layer out"
        )
    return activations


# From activations and gradients (B, C, h, w) to maps (B, h, w).


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.sum((2, 3), keepdim=True) * activations).sum(1)


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu()


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    square, cube = gradients**2, gradients**3
    divisor = 2 * square + activations.sum((2, 3), keepdim=True) * cube  # (B, C, h, w)
    alpha = torch.where(divisor != 0, square / torch.where(divisor != 0, divisor, torch.ones_like(divisor)), 0.0)
    return ((alpha * gradients.relu()).sum((2, 3), keepdim=True) * activations).sum(1).relu()


def _warn_of_small_divisors(layer: str, activations: Tensor, gradients: Tensor) -> None:
    """Warn where grad-cam++ has weights that mean little.

    alpha = 1 / (2 + sum(A) g) matters where g > 0. Behind a ReLU, sum(A) >= 0, so alpha is at most 1/2 there; for other
    activations the divisor can come near zero."""
    divisors = (2 + activations.sum((2, 3), keepdim=True) * gradients)[gradients > 0]
    if (divisors < 1).any():
        warnings.warn(
            f"grad-cam++ divides by 2 + sum(A) g, which is as low as {float(divisors.min()):.3g} at layer {layer!r}: "
            "its activations add up to less than zero, and the weights then mean little. Name a layer behind a ReLU, "
            "or use grad-cam",
            VizcnnWarning,
            stacklevel=2,
        )


def _layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.relu() * activations).sum(1).relu()


def _eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG001 - the target plays no part in it
    positions = activations.flatten(2).mT  # (B, h w, C)
    _, _, directions = torch.linalg.svd(positions, full_matrices=False)  # not centred
    projections = (positions @ directions[:, 0, :, None])[..., 0]  # (B, h w)
    signs = torch.where(projections.sum(1, keepdim=True) < 0, -1.0, 1.0)  # a singular vector has no sign of its own
    maps: Tensor = (projections * signs).view(len(activations), *activations.shape[2:]).relu()  # (B, h, w)
    return maps


_FORMULAE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "layer-cam": _layer_cam,
    "eigen-cam": _eigen_cam,
}


@torch.no_grad()
def _score_without(model: Model, images: Tensor, targets: Sequence[Target], layer: str) -> Tensor:
    """The score of each target for its image, (B,), that is left when the layer gives nothing: the bias.

    images: (B, C, H, W), or one for all targets."""
    with hook_layer(model.layer(layer), lambda _module, _inputs, output: torch.zeros_like(output)):
        return score_each(model, images.expand(len(targets), -1, -1, -1), targets)


def _require_average_pooling(
    subject: Subject,
    images: Tensor,
    targets: Sequence[Target],
    layer: str,
    activations: Tensor,
    gradients: Tensor,
) -> None:
    """Refuse a layer for which CAM is not exact: what follows must be linear and treat all positions alike."""
    model = subject.model
    with torch.no_grad():
        scores = score_each(model, images, targets)  # (B,)
    biases = _score_without(model, images, targets, layer)  # (B,)
    contributions = gradients * activations  # (B, C, h, w); they add up to the score less the bias if all is linear
    missing = (scores - biases - contributions.sum((1, 2, 3))).abs()  # (B,)
    uneven = (gradients - gradients.mean((2, 3), keepdim=True)).abs().amax((1, 2, 3))  # (B,)
    tolerance = max(1e-3, 8 * torch.finfo(images.dtype).eps)
    if (
        (uneven > tolerance * gradients.abs().amax((1, 2, 3)))
        | (missing > tolerance * contributions.abs().sum((1, 2, 3)))
    ).any():
        raise UnsuitableNetwork(
            f"CAM needs global average pooling and one linear layer behind {layer!r}, and {model.name} has "
            f"something else there. Use grad-cam, or the layer directly before the pooling"
        )


@torch.no_grad()
def _score_cam(subject: Subject, images: Tensor, targets: Sequence[Target], layer: str, batch: int | None) -> Tensor:
    """The maps (B, h, w) of images (B, C, H, W), each of which is shown through every channel of the layer."""
    model = subject.model
    activations = _check_spatial(layer, read_activations(model, images, [layer])[layer]).to(_PRECISE)  # (B, K, h, w)
    channels = activations.flatten(0, 1)[:, None]  # (B K, 1, h, w)
    background = images.new_tensor(model.input.mean).view(1, -1, 1, 1)

    def show_through(indices: Indices) -> Tensor:
        shown = torch.from_numpy(indices).to(images.device)
        masks = F.interpolate(channels[shown], images.shape[2:], mode="bilinear", align_corners=False)  # (n, 1, H, W)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=1e-12)
        return background + (images[shown // activations.shape[1]] - background) * masks.to(images.dtype)

    different = [*{id(one): one for one in targets}.values()]  # a person's own may be without a hash
    indices, count = np.arange(len(channels)), activations.shape[1]
    batches = score_batches(model, show_through, indices, different, batch=batch, layout=subject.layout, shown=False)
    columns = np.repeat([[id(one) for one in different].index(id(target)) for target in targets], count)  # (B K,)
    own = np.concatenate([scores for _, scores in batches])[indices, columns]
    scores = torch.from_numpy(own).to(activations).view(len(images), count)  # (B, K)
    maps: Tensor = (scores.softmax(1)[:, :, None, None] * activations).sum(1)  # (B, h, w)
    return maps.relu()


def find_strongest_region(values: Tensor, share: float = LEVEL) -> Box | None:
    """The box, in px, around the connected region with the highest value of a map (H, W), in which all values exceed
    `share` of that value; None where no value is positive."""
    from scipy.ndimage import label

    numbers = values.detach().float().cpu().numpy()
    highest = numbers.max()
    if not highest > 0:
        return None
    regions, _ = label(numbers > share * highest, np.ones((3, 3)))  # corners touch too
    return Box.around(regions == regions.flat[numbers.argmax()])
