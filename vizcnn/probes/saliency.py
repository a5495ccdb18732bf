"""Saliency: which pixels does the target react to? The gradient and its family."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

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
    functional, in-place and reused ReLUs too; refused where a network uses activations other than sigmoid gates).

    A pixel's colours are joined into one number: `abs` takes the largest magnitude, `signed` the sum. Contributions
    (gradient-x-input, integrated-gradients) are signed by default, the others magnitudes. The colours of the picture
    end at the 99.5th percentile; the raw values are kept.

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
        attribute = self._attributor(subject)

        def one(image: Tensor, target: Target) -> Map:
            per_channel = attribute(image, target)[0]  # (C, H, W)
            values = per_channel.sum(0) if sign == "signed" else per_channel.abs().amax(0)  # (H, W)
            return Map(values, find_densest(values), f"{self.method} is strongest")

        return heatmap(
            subject,
            each_map(subject, one_by_one(one), label=self.method),
            meaning=lambda quantity: self._meaning(quantity, sign),
            signed=sign == "signed",
            percentile=99.5,
            paper=_PAPERS[self.method],
            details={"method": self.method, "sign": sign},
        )

    def _meaning(self, quantity: str, sign: str) -> str:
        what = f"share of the {quantity}" if self.method in _CONTRIBUTIONS else f"d {quantity} / d pixel"
        return f"{what} ({self.method}, {'sum' if sign == 'signed' else 'largest magnitude'} over colours)"

    def _attributor(self, subject: Subject) -> Callable[[Tensor, Target], Tensor]:
        """image (1, C, H, W), target -> attribution (1, C, H, W)."""
        from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel
        from captum.attr import Saliency as Gradient

        def forward(target: Target) -> Callable[[Tensor], Tensor]:
            return lambda images: score(subject, images.to(subject.model.dtype), target)  # captum's noise is float32

        def plain(image: Tensor, target: Target) -> Tensor:
            with self._rule() as rule:
                found: Tensor = Gradient(forward(target)).attribute(image.requires_grad_(), abs=False)
            if isinstance(rule, ReluRule):
                rule.check()
            return found

        def times_input(image: Tensor, target: Target) -> Tensor:
            return InputXGradient(forward(target)).attribute(image.requires_grad_())  # type: ignore[no-any-return]

        def smooth(image: Tensor, target: Target) -> Tensor:
            spread = self.noise * float(image.max() - image.min())
            tunnel = NoiseTunnel(Gradient(forward(target)))
            # the same noise for each map; captum draws it from the process's random numbers
            with seed_random(subject.seed):
                return tunnel.attribute(  # type: ignore[no-any-return]
                    image.requires_grad_(), nt_samples=self.samples, nt_samples_batch_size=8, stdevs=spread, abs=False
                )

        def integrated(image: Tensor, target: Target) -> Tensor:
            start = make_baseline(self.baseline, image[0], subject.model.input.mean, (image.shape[2] // 4,) * 2)[None]
            return IntegratedGradients(forward(target)).attribute(  # type: ignore[no-any-return]
                image.requires_grad_(), baselines=start, n_steps=self.steps, internal_batch_size=16
            )

        special = {"gradient-x-input": times_input, "smoothgrad": smooth, "integrated-gradients": integrated}
        return special.get(self.method, plain)

    def _rule(self) -> AbstractContextManager[Any]:
        return ReluRule(_RULES[self.method]) if self.method in _RULES else nullcontext()
