from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, get_args

import captum.attr as captum
import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, NotDifferentiable, ParameterError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.probes.saliency import Method

METHODS = get_args(Method)


def model(network: nn.Module | None = None) -> vizcnn.Model:
    return vizcnn.Model(
        network or small_cnn(), size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), labels=list("abcde")
    )


def image(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def values(found: vizcnn.Heatmap) -> np.ndarray[Any, Any]:
    one: np.ndarray[Any, Any] = found.values[0, 0]
    return one


@pytest.mark.parametrize("target", [2, "0:3", "3:1@2,3"])
def test_the_gradient_is_the_gradient(target: str | int) -> None:
    """Against finite differences in float64, for a class, a channel and one neuron."""
    double = model(small_cnn().double())
    x = image().double()
    found = vizcnn.Saliency(sign="signed")(double, x, target)
    one = vizcnn.target(target)

    def number(images: Tensor) -> float:
        from vizcnn.models.determinism import score_images

        with double.borrowed(), torch.no_grad():
            return float(score_images(double, images, [one])[0, 0])

    for y, column in ((3, 4), (8, 8), (15, 0)):
        expected = 0.0
        for channel in range(3):
            step = torch.zeros_like(x)
            step[0, channel, y, column] = 1e-5
            expected += (number(x + step) - number(x - step)) / 2e-5
        assert values(found)[y, column] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def peer(method: str, network: vizcnn.Model, x: Tensor) -> Tensor:
    """captum's own answer for class 2, called as captum's documentation does."""
    x = x.clone().requires_grad_()
    forward = network.__call__
    if method == "gradient":
        return captum.Saliency(forward).attribute(x, target=2, abs=False)  # type: ignore[no-any-return]
    if method == "gradient-x-input":
        return captum.InputXGradient(forward).attribute(x, target=2)  # type: ignore[no-any-return]
    if method == "integrated-gradients":
        return captum.IntegratedGradients(forward).attribute(x, target=2, n_steps=64)  # type: ignore[no-any-return]
    torch.manual_seed(0)
    return captum.NoiseTunnel(captum.Saliency(forward)).attribute(  # type: ignore[no-any-return]
        x, target=2, abs=False, nt_samples=8, stdevs=0.15 * float((x.max() - x.min()).detach())
    )


@pytest.mark.parametrize("method", ["gradient", "gradient-x-input", "integrated-gradients", "smoothgrad"])
def test_equal_to_captum(method: Method) -> None:
    expected = peer(method, model(), image())[0]
    signed = vizcnn.Saliency(method=method, sign="signed", samples=8)(model(), image(), 2)
    np.testing.assert_allclose(values(signed), expected.sum(0).detach().numpy(), rtol=1e-4, atol=1e-7)
    magnitude = vizcnn.Saliency(method=method, sign="abs", samples=8)(model(), image(), 2)
    np.testing.assert_allclose(values(magnitude), expected.abs().amax(0).detach().numpy(), rtol=1e-4, atol=1e-7)


def test_integrated_gradients_add_up_to_the_difference() -> None:
    found = vizcnn.Saliency(method="integrated-gradients", baseline="mean", steps=200)(model(), image(), "b")
    x = image()
    with torch.no_grad():
        ground = model()(x.mean((2, 3), keepdim=True).expand_as(x))[0, 1]
    assert values(found).sum() == pytest.approx(found.scores[0, 0] - float(ground), rel=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_in_place_relu_changes_nothing(method: Method) -> None:
    pure = small_cnn()
    for module in pure.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for target in ("c", "0:1", "3:4@1,1"):
        a, b = (vizcnn.Saliency(method=method)(model(net), image(), target) for net in (pure, small_cnn()))
        np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_alone_and_in_company(method: Method) -> None:
    together = vizcnn.Saliency(method=method, samples=4)(model(), image(3), ["a", "b"])
    assert together.values.shape == (3, 2, 16, 16)
    alone = vizcnn.Saliency(method=method, samples=4)(model(), image(3)[2], "b")
    np.testing.assert_allclose(together.values[2, 1], values(alone), rtol=1e-4, atol=1e-8)


class Reusing(nn.Module):
    """One ReLU module, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = small_cnn()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        conv1, _, pool, conv2, _, *rest = self.net
        x = self.relu(conv2(pool(self.relu(conv1(x)))))
        for layer in rest:
            x = layer(x)
        return x


@pytest.mark.parametrize("method", METHODS)
def test_reused_modules_change_nothing(method: Method) -> None:
    a, b = (vizcnn.Saliency(method=method)(model(net), image(), "d") for net in (Reusing(), small_cnn()))
    np.testing.assert_array_equal(a.values, b.values)


def test_the_figure_states_the_method_and_the_sign() -> None:
    found = vizcnn.Saliency(method="smoothgrad")(model(), image())
    assert found.meanings == ("d logit / d pixel (smoothgrad, largest magnitude over colours)",)
    assert not found.signed
    assert found.provenance.paper.startswith("Smilkov")
    contribution = vizcnn.Saliency(method="integrated-gradients")(model(), image())
    assert contribution.meanings == ("share of the logit (integrated-gradients, sum over colours)",)
    assert contribution.signed


def test_regression_and_segmentation_through_a_function() -> None:
    segmenter = nn.Conv2d(3, 2, 3, padding=1)
    own = vizcnn.Model(segmenter, size=16)
    found = vizcnn.Saliency(sign="signed")(own, image(), lambda output: output[:, 1, 4, 4])
    assert {tuple(p) for p in np.argwhere(values(found))} == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}


def test_methods_that_would_degenerate_are_refused() -> None:
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten())
    with pytest.raises(DegenerateResult, match="uses gelu, but this method's rule is defined for ReLU only"):
        vizcnn.Saliency(method="guided-backprop")(vizcnn.Model(smooth, size=16), image(), 0)
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(DegenerateResult, match="has no ReLU, so this method would be the plain gradient"):
        vizcnn.Saliency(method="deconvnet")(vizcnn.Model(linear, size=16), image(), 0)
    dead: Any = copy.deepcopy(small_cnn())
    with torch.no_grad():
        dead[0].bias.fill_(-99)
    with pytest.raises(DegenerateResult, match="is zero everywhere"):
        vizcnn.Saliency()(model(dead), image(), "a")
    with pytest.raises(NotDifferentiable, match="target <lambda> has no gradient with respect to the pixels"):
        vizcnn.Saliency()(model(), image(), lambda output: output.argmax(1).float())


@dataclass
class Brightest:
    """A person's own target: a plain dataclass has no hash."""

    layers = ("0",)

    def __call__(self, activations: Any) -> Tensor:
        return activations["0"].amax((1, 2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("probe", [vizcnn.Saliency(), vizcnn.Cam(layer="0")])
def test_a_target_of_ones_own_needs_no_hash(probe: Any) -> None:
    found = probe(model(), image(), [Brightest(), "b"], progress=False)
    same = probe(model(), image(), [vizcnn.target(Brightest(), layers="0"), "b"], progress=False)
    np.testing.assert_array_equal(found.values, same.values)


def test_a_target_after_a_softmax_is_warned_of_and_the_logit_offered() -> None:
    network = nn.Sequential(small_cnn(), nn.Softmax(1))
    with pytest.warns(VizcnnWarning, match=r"is a probability: .* Explain the logit instead, .* '0.7:CLASS'"):
        vizcnn.Saliency()(model(network), image(), "a")
    vizcnn.Saliency()(model(network), image(), "0.7:0")


def test_it_works_under_no_grad_and_inference_mode() -> None:
    subject, x = model(), image()
    expected = vizcnn.Saliency()(subject, x, "a")
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            np.testing.assert_array_equal(vizcnn.Saliency()(subject, x, "a").values, expected.values)


def test_bad_options() -> None:
    with pytest.raises(ParameterError, match="Saliency: method must be one of 'gradient', .* got 'gradcam'"):
        vizcnn.Saliency(method="gradcam")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="Saliency: baseline must be mean, model, blur or a colour"):
        vizcnn.Saliency(baseline="blak")


class Interrupting(nn.Module):
    """Somebody presses Ctrl-C in the run with which this many images have been run for their gradients."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, 5)
        self.last, self.images = last, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x) * torch.is_grad_enabled()
        if self.images >= self.last:
            raise KeyboardInterrupt
        out: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return out


@pytest.mark.parametrize(
    ("method", "copies", "images", "batch", "kept"),
    [
        ("gradient", 1, 2, 1, 1),
        ("gradient", 1, 14, None, 12),
        ("smoothgrad", 32, 12, None, 11),
        ("smoothgrad", 32, 4, 64, 2),
        ("integrated-gradients", 64, 12, None, 11),
        ("integrated-gradients", 64, 4, 1, 3),
    ],
)
def test_ctrl_c_keeps_the_images_that_are_done(
    method: Method, copies: int, images: int, batch: int | None, kept: int
) -> None:
    """Of photographs in their usual size, in the last run for the last of them."""
    inputs = torch.rand(images, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    network = Interrupting(images * copies)
    with pytest.raises(vizcnn.Interrupted) as caught:
        vizcnn.Saliency(method=method, batch=batch)(vizcnn.Model(network, size=224), inputs, 1, progress=False)
    assert isinstance(caught.value.result, vizcnn.Heatmap)
    assert caught.value.result.values.shape == (kept, 1, 224, 224)
    assert caught.value.result.partial


def test_where_memory_ends_a_single_image_has_fewer_copies_in_a_run() -> None:
    class Small(nn.Module):
        """Has memory for one image only."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1 and x.requires_grad:
                raise torch.OutOfMemoryError("out of memory on purpose")
            out: Tensor = self.net(x)
            return out

    for method in ("smoothgrad", "integrated-gradients"):
        found, expected = (vizcnn.Saliency(method=method)(model(net), image(), 2) for net in (Small(), small_cnn()))
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-7)


def test_the_few_pixels_of_an_early_unit_are_seen_and_marked() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    found = vizcnn.Saliency()(vizcnn.Model(network, size=96), x, "0:3@20,20")
    assert found.scale(0, 0) <= found.values.max()
    assert found.marks[0][0] is not None
    assert found.marks[0][0].box == Box(40, 40, 43, 43)


def test_smoothgrad_in_half_precision() -> None:
    found = vizcnn.Saliency(method="smoothgrad", samples=4)(model(small_cnn().bfloat16()), image(), "a")
    assert np.isfinite(found.values).all()
