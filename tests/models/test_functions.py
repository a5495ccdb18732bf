"""A person's own function of layers' activations is a target like any other."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support import check_same, picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import LayerNotFound, NotDifferentiable, TargetError
from vizcnn.models.targets import OUTPUT, target


def contrast(activations: Any) -> Tensor:
    """How uneven one layer is, and a little of another."""
    uneven: Tensor = activations["0"].flatten(1).var(1) + 0.1 * activations["3"][:, 2].amax((1, 2))
    return uneven


def model(size: int = 12) -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=size, labels=list("abcde"))


def own() -> vizcnn.Target:
    return target(contrast, layers=["0", "3"])


def plainly(images: Tensor) -> Tensor:
    """The same numbers from the modules called one by one, differentiable: (N,)."""
    layers = copy.deepcopy(small_cnn())
    first = layers[0](images)
    third = layers[3](layers[2](torch.relu(first)))
    return contrast({"0": first, "3": third})


def test_a_function_of_two_layers_gives_a_number_per_image() -> None:
    images = picture((12, 12), count=3)
    found = vizcnn.Occlusion(window=6)(model(), images, own(), progress=False)
    np.testing.assert_allclose(found.scores[:, 0], plainly(images).detach().numpy(), rtol=1e-5)


def test_an_object_that_names_its_layers_is_such_a_function() -> None:
    class Contrast:
        layers = ("0", "3")

        def __call__(self, activations: Any) -> Tensor:
            return contrast(activations)

    one = target(Contrast())
    assert one.layers == {"0", "3"}
    assert str(one) == "Contrast"
    image = picture((12, 12))
    np.testing.assert_array_equal(
        vizcnn.Saliency()(model(), image, Contrast()).values, vizcnn.Saliency()(model(), image, own()).values
    )


class Head(nn.Module):
    """A function of the output that happens to keep modules under the name of `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity()])

    def forward(self, output: Tensor) -> Tensor:
        return output[:, 1]


def test_a_module_with_layers_of_its_own_is_a_function_of_the_output() -> None:
    assert target(Head()).layers == {OUTPUT}


def test_the_function_may_also_look_at_the_output() -> None:
    both = target(lambda seen: seen[""][:, 1] - seen["0"].mean((1, 2, 3)), layers=["0", ""])
    image = picture((12, 12))
    found = vizcnn.Saliency()(model(), image, both)
    network = small_cnn().eval().requires_grad_(False)
    assert found.scores[0, 0] == pytest.approx(float(network(image)[0, 1] - network[0](image).mean()), rel=1e-5)


def test_saliency_is_the_gradient_of_the_function() -> None:
    image = picture((12, 12)).requires_grad_()
    (expected,) = torch.autograd.grad(plainly(image).sum(), image)
    found = vizcnn.Saliency(method="gradient", sign="signed")(model(), image.detach(), own())
    np.testing.assert_allclose(found.values[0, 0], expected[0].sum(0).numpy(), rtol=1e-4, atol=1e-7)


def test_occlusion_recomputes_what_the_function_needs() -> None:
    check_same(model(32), picture((32, 32)), [own(), own() - 0.5 * target("a")], window=8, stride=8)


def test_cam_explains_it_at_a_layer_before_and_refuses_one_behind() -> None:
    image, layers = picture((12, 12)), small_cnn()
    first = layers[0](image).detach().requires_grad_()  # (1, 8, 12, 12), of which the map has the size too
    (gradient,) = torch.autograd.grad(contrast({"0": first, "3": layers[3](layers[2](torch.relu(first)))}), first)
    expected = (gradient.mean((2, 3), keepdim=True) * first).sum(1).relu()[0]
    found = vizcnn.Cam(layer="0")(model(), image, own())
    assert expected.max() > 0
    np.testing.assert_allclose(found.values[0, 0], expected.detach().numpy(), rtol=1e-3, atol=1e-8)
    with pytest.raises(NotDifferentiable, match="target contrast has no gradient with respect to layer '4'"):
        vizcnn.Cam(layer="4")(model(), image, own())


def test_maximize_raises_it() -> None:
    starts, ends = (
        vizcnn.Maximize(preset="lecture", steps=steps)(model(), target=own(), progress=False).reached
        for steps in (1, 40)
    )
    assert ends[0] > 2 * starts[0]


def test_its_name_is_on_record_and_it_adds_up_with_others() -> None:
    both = 2 * own() - target("fc:1")
    assert str(both) == both.spec == "2 * contrast - fc:1"
    assert both.layers == {"0", "3", "fc"}
    assert own().quantity == "score"
    found = vizcnn.Saliency()(model(), picture((12, 12)), own())
    assert found.provenance.targets == found.provenance.target_specs == (("contrast",),)


def test_a_layer_that_does_not_exist_is_named_with_the_nearest(tiny: vizcnn.Model) -> None:
    wrong = target(contrast, layers=["layer1", "layr2"])
    with pytest.raises(LayerNotFound, match="no layer named 'layr2' in tiny. Did you mean 'layer2'"):
        vizcnn.Saliency()(tiny, "sample:grace_hopper", wrong)


def test_a_layer_that_was_not_named_is_refused() -> None:
    forgotten = target(lambda seen: seen["convs"].mean((1, 2, 3)), layers=["conv", "fc"])
    with pytest.raises(
        TargetError, match=r"asks for layer 'convs', and its layers are 'conv', 'fc'. Did you mean 'conv'"
    ):
        forgotten({"conv": torch.zeros(1, 2, 3, 3), "fc": torch.zeros(1, 2), "convs": torch.zeros(1, 2, 3, 3)})


def test_what_is_no_function_of_layers_is_refused() -> None:
    with pytest.raises(TargetError, match="is a function of their activations, got 'fc:1'"):
        target("fc:1", layers=["fc"])
    with pytest.raises(TargetError, match=r"at least one, got \[\]"):
        target(contrast, layers=[])
    with pytest.raises(TargetError, match=r"at least one, got \[3\]"):
        target(contrast, layers=[3])  # type: ignore[list-item]
    with pytest.raises(TargetError, match=r"must return one number per image, a tensor \(N,\), got \(2, 3\)"):
        target(lambda seen: seen["fc"], layers="fc")({"fc": torch.zeros(2, 3)})
