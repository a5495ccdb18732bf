"""Kernels that are computed in each run: what is shown is what the next run in eval mode convolves with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import small_cnn
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import vizcnn
from vizcnn.errors import DegenerateResult
from vizcnn.models.layers.kernels import find_used_kernels, reads_image
from vizcnn.probes.top_images import TopImages
from vizcnn.testing import state_of


@pytest.fixture(autouse=True)
def old_tools() -> Iterator[None]:
    """Weight norm by hooks is deprecated, and common."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Standardized(nn.Conv2d):
    """Weight standardization, which computes in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)  # (N, K, H, W)


class Wrapper(nn.Module):
    """Sets its convolution's weight and calls past the hooks, as widely copied code for spectral norm does."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.raw = nn.Parameter(conv.weight.detach().clone())
        del conv.weight
        conv.weight = torch.zeros_like(self.raw)

    def forward(self, x: Tensor) -> Tensor:
        self.conv.weight = self.raw / self.raw.norm()
        return self.conv.forward(x)  # (N, K, H, W)


def halve(conv: nn.Conv2d) -> None:
    """A person's own hook that computes the weight."""
    conv.raw = nn.Parameter(conv.weight.detach().clone())
    del conv.weight
    conv.weight = torch.zeros_like(conv.raw)
    conv.register_forward_pre_hook(lambda module, _: setattr(module, "weight", module.raw / 2))


def prune_half(conv: nn.Conv2d) -> None:
    prune.l1_unstructured(conv, "weight", amount=0.5)


def double(conv: nn.Conv2d) -> None:
    parametrize.register_parametrization(conv, "weight", Doubled())


COMPUTED: dict[str, Callable[[nn.Conv2d], Any]] = {
    "weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
    "pruning": prune_half,
    "own hook": halve,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "own parametrization": double,
}


def network(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def stale(first: nn.Module) -> vizcnn.Model:
    """A model in training mode that was given other weights after its last run, as by a checkpoint."""
    model = vizcnn.Model(network(first), size=12, labels=["a", "b", "c"])
    model.network.eval()
    model(torch.rand(1, 3, 12, 12))
    torch.manual_seed(5)
    model.network.load_state_dict({k: torch.rand_like(v) for k, v in model.network.state_dict().items()})
    model.network.train()
    return model


def convolves_with(model: vizcnn.Model, layer: str, kernels: Tensor) -> bool:
    """Whether a run of a copy in eval mode gives what a convolution with these kernels does."""
    conv, seen = model.layer(layer), dict[str, Tensor]()
    assert isinstance(conv, nn.Conv2d)
    outer = model.layer(layer.split(".")[0])
    handle = outer.register_forward_hook(lambda _, inputs, output: seen.update(inputs=inputs[0], output=output))
    with torch.no_grad():
        model.network.eval()(torch.rand(1, 3, 12, 12))
    handle.remove()
    wanted = F.conv2d(seen["inputs"], kernels, conv.bias, padding=conv.padding[0])  # (N, K, H, W)
    return torch.allclose(seen["output"], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", COMPUTED)
def test_kernels_are_those_of_the_next_run_and_no_trace_is_left(kind: str) -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    COMPUTED[kind](conv)
    model = stale(conv)
    before, attributes = state_of(model), dict(vars(conv))
    shown = vizcnn.Filters()(model).arrays()["filters"]  # (K, h, w, C)
    assert state_of(model) == before
    assert all(vars(conv)[name] is value for name, value in attributes.items())
    assert convolves_with(model, "0", torch.from_numpy(shown).permute(0, 3, 1, 2))


@pytest.mark.parametrize("first", [Standardized(3, 8, 3), Wrapper(nn.Conv2d(3, 8, 3))], ids=["own forward", "wrapper"])
def test_layers_that_compute_their_kernels_themselves(first: nn.Module) -> None:
    model = stale(first)
    layer = "0" if isinstance(first, nn.Conv2d) else "0.conv"
    assert convolves_with(model, layer, find_used_kernels(model, layer))


def test_what_is_beside_the_best_images_is_the_used_kernel_too() -> None:
    model = stale(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)))
    photos = [torch.rand(12, 12, 3).numpy() for _ in range(2)]
    before = state_of(model)
    found = TopImages(count=1, beside=("filter",))(model, photos, ["0:1", "0:4"], progress=False)
    assert state_of(model) == before
    kernels = find_used_kernels(model, "0")
    for row, channel in zip(found.rows, (1, 4), strict=True):
        (_, shown), kernel = row.beside[0], kernels[channel].permute(1, 2, 0)  # (h, w, C)
        torch.testing.assert_close(torch.from_numpy(shown), 0.5 + kernel / (2 * kernel.abs().max()))


def test_only_the_first_convolutions_kernels_are_pictures_of_image_channels() -> None:
    model = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3)), size=12)
    assert [reads_image(model, layer) for layer in "012"] == [True, False, False]


def test_kernels_that_are_parameters_are_read_without_a_run() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    model.network.register_forward_hook(lambda *_: pytest.fail("the network was run"))
    conv = model.layer("3")
    assert isinstance(conv, nn.Conv2d)
    torch.testing.assert_close(find_used_kernels(model, "3"), conv.weight.detach())


def test_a_network_that_fails_behind_the_layer_still_shows_its_kernels() -> None:
    model = stale(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)))
    model.network.add_module("4", nn.Linear(7, 3))
    assert find_used_kernels(model, "0").shape == (8, 3, 3, 3)


def test_computed_kernels_of_a_layer_that_does_not_run_are_unknown() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.utils.weight_norm(nn.Conv2d(3, 8, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.aux(x) if self.training else x

    with pytest.raises(DegenerateResult, match="the weights of 'aux' of Auxiliary are computed when it runs, and it"):
        vizcnn.Filters(layer="aux")(vizcnn.Model(Auxiliary(), size=12))
