"""Networks that compute in 16 or 64 bits are answered for as in 32, up to their rounding; what gets lost is said."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import QUICK, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, NonFiniteResult, VizcnnWarning
from vizcnn.probing import registry

ROUNDING = {torch.float64: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}
"""What a map may differ by, as a share of its largest value: bfloat16 has 3 digits, and gradients pass many layers."""
METHODS = {
    "saliency": [
        *("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop", "deconvnet")
    ],
    "cam": ["cam", "grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam"],
}
EACH = [(name, method) for name in registry.list_names() for method in METHODS.get(name, [None])]
TARGETS = {"deconvnet": "3:5", "dream": "3:5", "maximize": "3:5", "top-images": None}
CHAOTIC = {"dream", "invert", "maximize", "style"}
"""Each step goes on from the one before, so pictures drift apart; what they reach can be compared."""


def make_network() -> nn.Module:
    return nn.Sequential(*list(small_cnn())[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


@cache
def compute(name: str, method: str | None, dtype: torch.dtype) -> dict[str, npt.NDArray[Any]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network().to(dtype)
    model = vizcnn.Model(network, size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))
    kind, images = registry.get(name), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    arguments: dict[str, Any] = {"target": TARGETS.get(name, 1)} if kind.needs_target else {}
    if kind.needs_images:
        arguments["images"] = [one.permute(1, 2, 0).numpy() for one in images] if kind.streams else images
    found: dict[str, npt.NDArray[Any]] = kind(**QUICK.get(name, {}), **({"method": method} if method else {}))(
        model, progress=False, seed=3, **arguments
    ).arrays()
    return found


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("name", "method"), EACH)
def test_every_probe_says_the_same_in_another_precision(name: str, method: str | None, dtype: torch.dtype) -> None:
    expected = compute(name, method, torch.float32)
    try:
        found = compute(name, method, dtype)
    except DegenerateResult as error:  # where windows and masks change a logit by no more than rounding
        promised = "computes in bfloat16, which tells numbers apart by 0.8% and ends at 3.39e+38: try it in float32"
        if dtype == torch.bfloat16 and promised in str(error):
            return
        raise
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value.dtype.kind == "f" and (name not in CHAOTIC or key == "reached") and "crop" not in key:
            assert found[key].dtype == value.dtype
            near = ROUNDING[dtype] * float(np.nanmax(np.abs(value), initial=0))
            if key == "boxes" and dtype == torch.bfloat16:  # of the second-best place, where two are nearly as good
                continue
            close = np.isclose(found[key], value, atol=near, rtol=0, equal_nan=True)
            # rounding can turn a ReLU or another place of a pool on for one of few samples, and with it a few pixels
            assert close.mean() >= (0.99 if method in ("smoothgrad", "integrated-gradients") else 1), key


def autograd_map(network: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    return slopes.abs().amax(1).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_gradient_is_that_of_the_network_as_it_is(dtype: torch.dtype) -> None:
    network, images = make_network().to(dtype), torch.rand(2, 3, 16, 16).to(dtype)
    found = vizcnn.Saliency()(vizcnn.Model(network, size=16), images, 1, progress=False).values
    np.testing.assert_array_equal(found[:, 0], autograd_map(network, images).numpy())


def test_an_overflow_says_that_the_precision_may_be_the_reason() -> None:
    network = make_network()
    with torch.no_grad():
        network[-1].weight.mul_(1e6)  # type: ignore[index]
    model = vizcnn.Model(deepcopy(network).half(), size=16)
    with pytest.raises(NonFiniteResult, match=r"computes in float16, .* ends at 6\.55e\+04: try it in float32"):
        vizcnn.Saliency()(model, torch.rand(1, 3, 16, 16), 1, progress=False)
    assert vizcnn.Saliency()(vizcnn.Model(network, size=16), torch.rand(1, 3, 16, 16), 1, progress=False).values.any()


def test_the_energy_of_large_activations_fits() -> None:
    network, images = make_network(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        network[0].weight.mul_(1.5e3)  # type: ignore[index]
        expected = float(network[0](images).square().mean())  # type: ignore[index]
    assert expected > 1.5 * torch.finfo(torch.float16).max
    found = vizcnn.Occlusion(window=8)(
        vizcnn.Model(network.half(), size=16), images, "energy(0)", progress=False
    ).scores
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_gradients_that_float16_rounds_away_are_warned_of() -> None:
    network, images = make_network(), torch.rand(1, 3, 16, 16)
    usual = float(vizcnn.Saliency()(vizcnn.Model(network, size=16), images, 1, progress=False).values.max())
    with torch.no_grad():
        network[-1].weight.mul_(4e-7 / usual)  # type: ignore[index]
    with pytest.warns(VizcnnWarning, match=r"float16 has only multiples of 6e-08 there: this map is mostly rounding"):
        vizcnn.Saliency()(vizcnn.Model(deepcopy(network).half(), size=16), images, 1, progress=False)
    vizcnn.Saliency()(vizcnn.Model(network, size=16), images, 1, progress=False)  # warnings are errors here
