"""Saliency: which pixels does the target react to? The gradient and its family."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import ClassVar, Literal

from torch import Tensor

from vizcnn.models.backward import ReluRule, guide, rectify
from vizcnn.models.targets import Target
from vizcnn.models.threads import seed_random
from vizcnn.occlusion.windows import check_fill, make_baseline
from vizcnn.probing.attribution import Map, each_map, find_densest, heatmap, one_by_one, score, warn_of_softmax
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


class Saliency(Probe[Heatmap]):
    """Which pixels does the answer react to?

    Methods, computed by captum on the target as a function of pixels in [0, 1]:
    gradient; gradient-x-input; smoothgrad (mean gradient over noisy copies); integrated-gradients (mean gradient on the
    way from a baseline, times the way); guided-backprop and deconvnet (other backward rules for ReLU, which here reach
    functional, in-place and reused ReLUs too; refused where a network has other activation functions, but for the
    sigmoids of gates).

    A pixel's three values, one per colour, become one: for `abs` the largest magnitude, for `signed` the sum.
    Contributions (gradient-x-input, integrated-gradients) are signed by default, the others magnitudes. The colour
    scale of the picture ends at the 99.5th percentile; the raw values are kept.

    Guided backprop and the deconvnet rule depend little on the target (Adebayo et al. 2018, arXiv:1810.03292): they
    show edges of the image rather than reasons of the network.

    Papers: Simonyan et al. 2013, arXiv:1312.6034; Smilkov et al. 2017, arXiv:1706.03825; Sundararajan et al. 2017,
    arXiv:1703.01365; Springenberg et al. 2014, arXiv:1412.6806; Zeiler & Fergus 2014, arXiv:1311.2901.
    Raises NotDifferentiable, DegenerateResult (all-zero map, no ReLU for the rule), NonFiniteResult.
    """

    paper: ClassVar[str] = "see the method"

    method: Method = param("gradient", "How to attribute.")
    sign: Literal["abs", "signed"] | None = param(None, "abs or signed; by default as fits the method.")
    samples: int = param(32, "Noisy copies (smoothgrad).", min=1)
    noise: float = param(0.15, "Standard deviation of the noise, as a share of the image's range (smoothgrad).", min=0)
    steps: int = param(64, "Steps on the way from the baseline (integrated-gradients).", min=1)
    baseline: str = param(
        "black", "Where the way begins: mean, model, blur or a colour, as occlusion's fill (integrated-gradients)."
    )

    def check(self) -> None:
        check_fill("Saliency: baseline", self.baseline)

    def compute(self, subject: Subject) -> Heatmap:
        warn_of_softmax(subject)
        sign = self.sign or ("signed" if self.method in _CONTRIBUTIONS else "abs")
        attribute = self._choose_attribution(subject)

        def make_map(image: Tensor, target: Target) -> Map:
            per_channel = attribute(image, target)[0]  # (C, H, W)
            values = per_channel.sum(0) if sign == "signed" else per_channel.abs().amax(0)  # (H, W)
            return Map(values, find_densest(values), f"{self.method} is strongest")

        return heatmap(
            subject,
            each_map(subject, one_by_one(make_map), label=self.method),
            meaning=lambda quantity: self._describe_values(quantity, sign),
            signed=sign == "signed",
            percentile=99.5,
            paper=_PAPERS[self.method],
            details={"method": self.method, "sign": sign},
        )

    def _describe_values(self, quantity: str, sign: str) -> str:
        what = f"share of the {quantity}" if self.method in _CONTRIBUTIONS else f"d {quantity} / d pixel"
        return f"{what} ({self.method}, {'sum' if sign == 'signed' else 'largest magnitude'} over colours)"

    def _choose_attribution(self, subject: Subject) -> Callable[[Tensor, Target], Tensor]:
        """The method, as a function of an image (1, C, H, W) and a target to the attribution (1, C, H, W)."""
        from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel
        from captum.attr import Saliency as Gradient

        def score_for(target: Target) -> Callable[[Tensor], Tensor]:
            return lambda images: score(subject, images.to(subject.model.dtype), target)  # captum's noise is float32

        def take_gradient(image: Tensor, target: Target) -> Tensor:
            rule = ReluRule(_RULES[self.method]) if self.method in _RULES else None
            with rule or nullcontext():
                gradient: Tensor = Gradient(score_for(target)).attribute(image.requires_grad_(), abs=False)
            if rule:
                rule.check()
            return gradient

        def multiply_by_input(image: Tensor, target: Target) -> Tensor:
            return InputXGradient(score_for(target)).attribute(image.requires_grad_())  # type: ignore[no-any-return]

        def smooth(image: Tensor, target: Target) -> Tensor:
            deviation = self.noise * float(image.max() - image.min())
            tunnel = NoiseTunnel(Gradient(score_for(target)))
            # captum draws the noise from the process's random numbers: seeded here, it is the same for each map
            with seed_random(subject.seed):
                return tunnel.attribute(  # type: ignore[no-any-return]
                    image.requires_grad_(),
                    nt_samples=self.samples,
                    nt_samples_batch_size=8,
                    stdevs=deviation,
                    abs=False,
                )

        def integrate(image: Tensor, target: Target) -> Tensor:
            start = make_baseline(self.baseline, image[0], subject.model.input.mean, (image.shape[2] // 4,) * 2)[None]
            return IntegratedGradients(score_for(target)).attribute(  # type: ignore[no-any-return]
                image.requires_grad_(), baselines=start, n_steps=self.steps, internal_batch_size=16
            )

        others = {"gradient-x-input": multiply_by_input, "smoothgrad": smooth, "integrated-gradients": integrate}
        return others.get(self.method, take_gradient)
