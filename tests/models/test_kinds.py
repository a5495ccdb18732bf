"""Networks with hooks of the person's own, and with weights that are made in each run, are answered for as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import vizcnn
from vizcnn.errors import UnsuitableNetwork

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def gradient(network: nn.Module) -> npt.NDArray[Any]:
    leaf = IMAGES.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    return slopes.abs().amax(1).numpy()


@torch.no_grad()
def occlude(network: nn.Module) -> npt.NDArray[Any]:
    """Each square of 4 px in black, in a run of its own."""
    maps = np.zeros((len(IMAGES), 16, 16), np.float32)
    for i, y, x in np.ndindex(len(IMAGES), 4, 4):
        there, altered = (slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4)), IMAGES[i : i + 1].clone()
        altered[0, :, *there] = 0
        maps[i, *there] = float(network(IMAGES[i : i + 1])[0, 1] - network(altered)[0, 1])
    return maps


def check_maps(network: nn.Module, reference: nn.Module) -> None:
    """The gradient and occlusion of the one are those of the other, computed by hand."""
    model = vizcnn.Model(network, size=16)
    found = vizcnn.Saliency()(model, IMAGES, 1, progress=False).values[:, 0]
    np.testing.assert_allclose(found, gradient(reference), rtol=1e-4, atol=1e-7)
    windows = vizcnn.Occlusion(window=4, stride=4, fill="black")(model, IMAGES, 1, progress=False)
    np.testing.assert_allclose(windows.values[:, 0], occlude(reference), rtol=1e-3, atol=1e-5)


@contextmanager
def hook_all_modules() -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _inputs, output: output * 1.5 if isinstance(module, nn.Conv2d) else None
    )
    try:
        yield
    finally:
        handle.remove()


def with_hooks() -> nn.Sequential:
    network = small_cnn()
    network[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    network[3].register_forward_pre_hook(lambda _module, inputs: (inputs[0].clamp(max=0.5),))
    return network


def test_hooks_that_change_values_are_a_part_of_the_network() -> None:
    check_maps(with_hooks(), with_hooks())
    by_hand = small_cnn()
    seen = by_hand[3](by_hand[2](by_hand[1](by_hand[0](IMAGES) * 2)).clamp(max=0.5)).mean((2, 3))[:, 2].detach()
    found = vizcnn.Saliency()(vizcnn.Model(with_hooks(), size=16), IMAGES, "3:2", progress=False).scores[:, 0]
    np.testing.assert_allclose(found, seen, rtol=1e-5)


def test_hooks_of_all_modules_are_a_part_of_the_network() -> None:
    without = gradient(small_cnn())
    with hook_all_modules():
        assert not np.allclose(gradient(small_cnn()), without)
        check_maps(small_cnn(), small_cnn())


def test_backward_hooks_change_no_map_and_stay() -> None:
    calls = []

    def double(_module: nn.Module, inputs: Any, _outputs: Any) -> Any:
        calls.append(1)
        return tuple(2 * each for each in inputs)

    network = small_cnn()
    network[1] = nn.ReLU(inplace=True)  # which torch refuses behind such a hook, unless that is set aside
    network[0].register_full_backward_hook(double)
    network[3].register_full_backward_hook(double)
    network[3].register_full_backward_pre_hook(lambda *_: calls.append(2))
    before = [[*module._backward_hooks, *module._backward_pre_hooks] for module in network]
    found = vizcnn.Saliency()(vizcnn.Model(network, size=16), IMAGES, 1, progress=False).values[:, 0]
    np.testing.assert_allclose(found, gradient(small_cnn()), rtol=1e-4, atol=1e-7)
    assert not calls
    assert [[*module._backward_hooks, *module._backward_pre_hooks] for module in network] == before
    network[3](torch.rand(1, 8, 4, 4, requires_grad=True)).sum().backward()
    assert calls


def test_backward_hooks_of_all_modules_are_refused() -> None:
    handle = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    try:
        with pytest.raises(UnsuitableNetwork, match=r"backward hooks on all modules .* Remove them first"):
            vizcnn.Saliency()(vizcnn.Model(small_cnn(), size=16), IMAGES, 1, progress=False)
    finally:
        handle.remove()


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.get_parameter("weight_g").mul_(1.7)


def weight_norm(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original0").mul_(1.7)


WEIGHTS: dict[str, Callable[[nn.Module], Any]] = {
    "weight norm": weight_norm,
    "old weight norm": old_weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": torch.nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_made_in_each_run(kind: str) -> None:
    network, twin, weight = small_cnn().eval(), small_cnn(), small_cnn()[3].weight
    torch.manual_seed(0)
    WEIGHTS[kind](network[3])
    network(IMAGES)
    twin[3].weight = nn.Parameter(torch.as_tensor(network[3].weight))
    assert not torch.equal(torch.as_tensor(twin[3].weight), torch.as_tensor(weight))
    keys = [*network.state_dict()]
    check_maps(network, twin)
    model, plain = vizcnn.Model(network, size=16), vizcnn.Model(twin, size=16)
    for method in ("guided-backprop", "deconvnet"):
        probe = vizcnn.Saliency(method=method)
        found, expected = (probe(each, IMAGES, 1, progress=False).values for each in (model, plain))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    found, expected = (
        np.asarray(vizcnn.Filters(layer="3")(each, progress=False).arrays()["filters"]) for each in (model, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    rows, expected_rows = (vizcnn.Layers()(each, progress=False).records() for each in (model, plain))
    same = ("layer", "type", "output")
    assert [[row[key] for key in same] for row in rows] == [[row[key] for key in same] for row in expected_rows]
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in network.parameters())
    assert [*network.state_dict()] == keys


def make_in_inference_mode() -> nn.Sequential:
    with torch.inference_mode():
        return small_cnn()


def test_a_network_made_in_inference_mode() -> None:
    network = make_in_inference_mode()
    check_maps(network, small_cnn())
    assert all(parameter.is_inference() and parameter.requires_grad for parameter in network.parameters())
    with torch.inference_mode():
        check = vizcnn.Maximize(steps=2)(vizcnn.Model(network, size=16), target="3:2", progress=False)
    expected = vizcnn.Maximize(steps=2)(vizcnn.Model(small_cnn(), size=16), target="3:2", progress=False)
    np.testing.assert_allclose(check.arrays()["reached"], expected.arrays()["reached"], rtol=1e-4)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = small_cnn(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        y: Tensor = self.inner[3:](checkpoint(self.inner[:3], x, use_reentrant=self.reentrant))
        return y


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_network_that_keeps_no_activations(reentrant: bool) -> None:
    check_maps(Checkpointed(reentrant), small_cnn())
    found = vizcnn.Cam(layer="inner.0")(vizcnn.Model(Checkpointed(reentrant), size=16), IMAGES, 1, progress=False)
    expected = vizcnn.Cam(layer="0")(vizcnn.Model(small_cnn(), size=16), IMAGES, 1, progress=False)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)
