"""Saliency: which pixels does the target react to? The gradient and its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.models.backward import ReluRule, guide, rectify
from vizcnn.models.batches import default_batch, run_batches
from vizcnn.models.determinism import score_images
from vizcnn.models.precision import warn_of_underflow
from vizcnn.models.targets import Target
from vizcnn.occlusion.windows import check_fill, make_baseline
from vizcnn.probing.attribution import (
    Map,
    compare_sums,
    each_map,
    find_densest,
    heatmap,
    score,
    score_inputs,
    warn_of_softmax,
)
from vizcnn.probing.facts import Facts, require_slopes
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap

Method = Literal["gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop", "deconvnet"]

_PAPERS = {
    "gradient": "Simonyan et al. 2013, arXiv:1312.6034",
    "gradient-x-input": "Shrikumar et al. 2016, arXiv:1605.01713",
    "smoothgrad": "Smilkov et al. 2017, arXiv:1706.03825",
    "integrated-gradients": "Sundararajan et al. 2017, arXiv:1703.01365",
    "guided-backprop": "Springenberg et al. 2014, arXiv:1412.6806",
    "deconvnet": "Zeiler & Fergus 2014, arXiv:1311.2901 (its rule for ReLU)",
}
_RULES = {"guided-backprop": guide, "deconvnet": rectify}
_CONTRIBUTIONS = ("gradient-x-input", "integrated-gradients")
_REPEATED = ("smoothgrad", "integrated-gradients")  # methods that run the network on altered copies of an image


class Saliency(Probe[Heatmap]):
    """Which pixels does the answer react to?

    Methods, on the target as a function of pixels in [0, 1]:
    gradient; gradient-x-input; smoothgrad (mean gradient over noisy copies); integrated-gradients (mean gradient on the
    way from a baseline, by the rule of Gauss and Legendre, times the way); guided-backprop and deconvnet (other
    backward rules for ReLU, which here reach functional, in-place and reused ReLUs too; refused where a network has
    other activation functions, but for the sigmoids of gates).

    A pixel's three values, one per colour, become one: for `abs` the largest magnitude, for `signed` the sum.
    Contributions (gradient-x-input, integrated-gradients) are signed by default, the others magnitudes. The colour
    scale of the picture ends at the 99.5th percentile; the raw values are kept.

    Guided backprop and the deconvnet rule depend little on the target (Adebayo et al. 2018, arXiv:1810.03292): they
    show edges of the image rather than reasons of the network.

        >>> import vizcnn
        >>> result = vizcnn.Saliency(method="integrated-gradients")(vizcnn.load("tiny"), "sample:grace_hopper")
        >>> result.values.shape, result.signed
        ((1, 1, 64, 64), True)

    Papers: Simonyan et al. 2013, arXiv:1312.6034; Smilkov et al. 2017, arXiv:1706.03825; Sundararajan et al. 2017,
    arXiv:1703.01365; Springenberg et al. 2014, arXiv:1412.6806; Zeiler & Fergus 2014, arXiv:1311.2901.
    Raises NotDifferentiable, DegenerateResult (all-zero map, no ReLU for the rule), NonFiniteResult.
    """

    paper: ClassVar[str] = "see the method"
    makes_maps: ClassVar[bool] = True

    method: Method = param("gradient", "How to attribute.")
    sign: Literal["abs", "signed"] | None = param(None, "abs or signed; by default as fits the method.")
    samples: int = param(32, "Noisy copies (smoothgrad).", min=1)
    noise: float = param(0.15, "Standard deviation of the noise, as a share of the image's range (smoothgrad).", min=0)
    steps: int = param(64, "Steps on the way from the baseline (integrated-gradients).", min=1)
    baseline: str = param(
        "black", "Where the way begins: mean, model, blur or a colour, as occlusion's fill (integrated-gradients)."
    )

    batch: int | None = param(None, "Images per run; by default by their size. Changes memory and time only.", min=1)

    def check(self) -> None:
        check_fill("Saliency: baseline", self.baseline)

    def rehearse(self, facts: Facts) -> str:
        relus = require_slopes(facts).relus
        if self.method in _RULES:
            relus.check()
        return str(facts.target)

    def compute(self, subject: Subject) -> Heatmap:
        warn_of_softmax(subject)
        if self.method in _REPEATED:
            subject = subject.run()
        over = "colours" if subject.model.input.channels in (1, 3) else "channels"
        sign = self.sign or ("signed" if self.method in _CONTRIBUTIONS else "abs")
        batch, at_once = self._choose_batch(subject)
        attribute = self._choose_attribution(subject, at_once)

        def make_maps(images: Tensor, targets: Sequence[Target]) -> list[Map]:
            per_channel = attribute(images, targets)  # (B, C, H, W)
            warn_of_underflow(per_channel, subject.model.dtype)
            values = (per_channel.sum(1) if sign == "signed" else per_channel.abs().amax(1)).cpu()  # (B, H, W)
            what, mark = f"{self.method} adds up to most", "the square in which it adds up to most"
            return [Map(one, find_densest(one), what, mark=mark) for one in values]

        return heatmap(
            subject,
            each_map(subject, make_maps, label=self.method, batch=batch),
            meaning=lambda quantity: self._describe_values(quantity, sign, over),
            signed=sign == "signed",
            percentile=99.5,
            paper=_PAPERS[self.method],
            details={"method": self.method, "sign": sign},
        )

    def measure_missing(self, subject: Subject, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
        """Of integrated gradients, whose contributions add up to the target's score less that of the baseline."""
        if self.method != "integrated-gradients" or self.sign == "abs":
            return None
        changes = []
        for image, targets, own in zip(subject.inputs, subject.targets, subject.scores, strict=True):
            start = self._make_start(subject, image[None]).to(image.dtype)  # (1, C, H, W)
            with torch.no_grad():
                changes.append(own - score_images(subject.model, start, targets)[0].double().cpu().numpy())
        return compare_sums(values.sum((2, 3), dtype=np.float64), np.stack(changes), subject.scores)

    def _make_start(self, subject: Subject, images: Tensor) -> Tensor:
        """Where the way to each of the images (B, C, H, W) begins, in float32 at least."""
        mean, spread = subject.model.input.mean, (images.shape[2] // 4,) * 2
        return make_baseline(
            self.baseline, images.to(torch.promote_types(images.dtype, torch.float32)), mean, spread
        )  # (B, C, H, W)

    def _choose_batch(self, subject: Subject) -> tuple[int, int]:
        """How many images to make maps of at once, and how many images, or altered copies of them, share a run.

        Of a method that makes copies, no more images than whose copies share a run, so that Ctrl-C loses little."""
        at_once = self.batch or default_batch(subject.size, subject.inputs.device)
        copies = {"smoothgrad": self.samples, "integrated-gradients": self.steps}.get(self.method, 1)
        return max(1, at_once // copies), at_once

    def _describe_values(self, quantity: str, sign: str, over: str) -> str:
        what = f"share of the {quantity}" if self.method in _CONTRIBUTIONS else f"d {quantity} / d pixel"
        return f"{what} ({self.method}, {'sum' if sign == 'signed' else 'largest magnitude'} over {over})"

    def _choose_attribution(self, subject: Subject, at_once: int) -> Callable[[Tensor, Sequence[Target]], Tensor]:
        """The method, as a function of images (B, C, H, W) and the target of each to attributions (B, C, H, W).

        at_once: how many altered copies share a run."""
        from captum.attr import InputXGradient
        from captum.attr import Saliency as Gradient

        def score_by(targets: Sequence[Target]) -> Callable[[Tensor, Tensor], Tensor]:
            """From images, and for each the index of its target, to scores: captum repeats both for steps on a way."""
            return lambda images, indices: score_inputs(subject, images, [targets[i] for i in indices.tolist()])

        def list_indices(images: Tensor) -> Tensor:
            return torch.arange(len(images))  # not on their device, where reading them would wait

        def take_gradient(images: Tensor, targets: Sequence[Target]) -> Tensor:
            rule = ReluRule(_RULES[self.method]) if self.method in _RULES else None
            with rule or nullcontext():
                gradient: Tensor = Gradient(score_by(targets)).attribute(
                    images.requires_grad_(), abs=False, additional_forward_args=list_indices(images)
                )
            if rule:
                rule.check()
            return gradient

        def multiply_by_input(images: Tensor, targets: Sequence[Target]) -> Tensor:
            return InputXGradient(score_by(targets)).attribute(  # type: ignore[no-any-return]
                images.requires_grad_(), additional_forward_args=list_indices(images)
            )

        def smooth(images: Tensor, targets: Sequence[Target]) -> Tensor:
            """The mean gradient over noisy copies. The noise is the same for each image, alone and in company."""
            highest, lowest = images.amax((1, 2, 3), keepdim=True), images.amin((1, 2, 3), keepdim=True)
            deviations = self.noise * (highest - lowest).float()  # (B, 1, 1, 1)
            rng = torch.Generator().manual_seed(subject.seed)
            states = dict[int, Tensor]()  # of the generator before each copy with which a run began

            def add_noise(part: slice) -> Tensor:
                rng.set_state(states.setdefault(part.start, rng.get_state()))  # the run may have been begun before
                noise = [torch.randn(images.shape[1:], generator=rng) for _ in range(part.start, part.stop)]
                return images + deviations * torch.stack(noise)[:, None].to(images.device)  # (k, B, C, H, W)

            weights = images.new_full((self.samples,), 1 / self.samples, dtype=torch.float32)
            return _add_gradients(subject, images, targets, add_noise, weights, at_once)

        def integrate(images: Tensor, targets: Sequence[Target]) -> Tensor:
            start = self._make_start(subject, images)  # (B, C, H, W)
            way = images - start  # (B, C, H, W)
            nodes, sizes = (
                torch.from_numpy(each / 2).to(way) for each in np.polynomial.legendre.leggauss(self.steps)
            )  # (steps,) both, on [-1/2, 1/2]

            def go(part: slice) -> Tensor:
                return start + (nodes[part] + 0.5).view(-1, 1, 1, 1, 1) * way  # (k, B, C, H, W)

            return way * _add_gradients(subject, images, targets, go, sizes, at_once)

        others = {"gradient-x-input": multiply_by_input, "smoothgrad": smooth, "integrated-gradients": integrate}
        return others.get(self.method, take_gradient)


def _add_gradients(
    subject: Subject,
    images: Tensor,
    targets: Sequence[Target],
    alter: Callable[[slice], Tensor],
    weights: Tensor,
    at_once: int,
) -> Tensor:
    """For each of the images (B, C, H, W) the weighted sum of the gradients of its altered copies, (B, C, H, W).

    alter: makes a part of the copies of all images, (k, B, C, H, W). weights: of the copies, (K,). at_once: copies of
        all images together in one run; fewer where memory runs out."""

    def run(part: slice) -> Tensor:
        copies = alter(part).to(subject.model.dtype)  # (k, B, C, H, W)
        seen = copies.flatten(0, 1).requires_grad_()  # (k B, C, H, W)
        (slopes,) = torch.autograd.grad(score(subject, seen, [*targets] * len(copies)).sum(), seen)
        return (weights[part].view(-1, 1, 1, 1, 1) * slopes.view_as(copies)).sum(0)  # (B, C, H, W)

    total = torch.zeros_like(images, dtype=weights.dtype)
    for _, one in run_batches(len(weights), max(1, at_once // len(images)), run):
        total += one
    return total
