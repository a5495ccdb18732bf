from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn

from vizcnn.errors import DegenerateResult
from vizcnn.models.backward import DeconvnetRule, ReluRule, guide, rectify

SPELLINGS: dict[str, Any] = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "functional": F.relu,
    "in-place functional": lambda x: F.relu(x, inplace=True),
    "torch": torch.relu,
    "in-place torch": torch.relu_,
    "method": lambda x: x.relu(),
    "in-place method": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "in-place clamp": lambda x: torch.clamp_(x, 0),
    "clip": lambda x: torch.clip(x, min=0),
    "in-place clip": lambda x: x.clip_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
}


class Network(nn.Module):
    def __init__(self, relus: tuple[Any, Any]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv1, self.conv2, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.relu1, self.relu2 = relus

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu1(self.conv1(x)), 3, 2)  # (N, 6, h, w)
        logits: Tensor = self.fc(self.relu2(self.conv2(x)).mean((2, 3)))  # (N, 4)
        return logits


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("rule", "peer"), [(guide, GuidedBackprop), (rectify, Deconvolution)])
def test_every_spelling_of_relu_obeys_and_equals_captum_on_modules(spelling: str, rule: Any, peer: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it sets hooks
        expected = peer(Network((nn.ReLU(), nn.ReLU()))).attribute(images(), target=1)
    x = images()
    with ReluRule(rule) as context:
        number = Network((SPELLINGS[spelling], SPELLINGS[spelling]))(x)[:, 1].sum()
    context.check()
    assert context.met == 2
    (found,) = torch.autograd.grad(number, x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("relu6", [F.relu6, nn.ReLU6(), lambda x: nn.ReLU6(inplace=True)(x * 1)])
def test_relu6_is_closed_above_six(relu6: Any) -> None:
    x = torch.tensor([-1.0, 3.0, 7.0], requires_grad=True)
    with ReluRule(guide):
        y = relu6(x)
    assert y.tolist() == [0, 3, 6]
    (found,) = torch.autograd.grad(y, x, torch.tensor([1.0, 2.0, 3.0]))
    assert found.tolist() == [0, 2, 0]


def test_outside_the_context_nothing_has_changed() -> None:
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with ReluRule(guide):
        pass
    (found,) = torch.autograd.grad(F.relu(x), x, torch.tensor([-1.0, -1.0]))
    assert found.tolist() == [0, -1]


def test_activations_without_a_rule_are_refused() -> None:
    with (
        pytest.raises(DegenerateResult, match="uses silu, but this method's rule is defined for ReLU only"),
        ReluRule(guide),
    ):
        nn.SiLU()(torch.zeros(1))
    others: tuple[Any, ...] = (nn.Hardtanh(), torch.selu_, torch.tanh, nn.Tanh(), Tensor.prelu, nn.Threshold(0.1, 0))
    for other in others:
        with pytest.raises(DegenerateResult, match="is defined for ReLU only"), ReluRule(guide):
            other(torch.zeros(1), *[torch.zeros(1)] * (other is Tensor.prelu))
    with ReluRule(guide) as context:
        nn.Linear(2, 2)(torch.zeros(1, 2))
    with pytest.raises(DegenerateResult, match="no ReLU, so this method would be the plain gradient"):
        context.check()


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2), lambda x: F.max_pool2d(x, 3, 2), nn.MaxPool2d(2, 2, ceil_mode=True)]
)
def test_unpooling_places_values_once_at_the_switches(pool: Any) -> None:
    x = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with DeconvnetRule():
        y = pool(x)
    torch.testing.assert_close(y, pool(x))
    signal = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(y, x, signal)
    expected = torch.zeros_like(x)
    side, step = (3, 2) if y.shape[2:] == (3, 4) else (2, 2)
    for n, c, i, j in torch.cartesian_prod(*(torch.arange(s) for s in y.shape)).tolist():
        window = x[n, c, i * step : i * step + side, j * step : j * step + side]
        row, column = divmod(int(window.argmax()), window.shape[1])
        at = n, c, i * step + row, j * step + column
        expected[at] = max(expected[at].item(), signal[n, c, i, j].item())
    torch.testing.assert_close(found, expected)


def test_unpooling_is_not_the_gradient_where_pools_overlap() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    x.requires_grad_()
    with DeconvnetRule():
        y = F.max_pool2d(x, 3, 2)  # all four windows have their maximum in the middle
    (placed,) = torch.autograd.grad(y, x, torch.ones_like(y))
    (added,) = torch.autograd.grad(F.max_pool2d(x, 3, 2), x, torch.ones_like(y))
    assert placed.sum() == placed[0, 0, 2, 2] == 1
    assert added[0, 0, 2, 2] == 4


def test_pools_that_return_their_switches_are_unpooled_too() -> None:
    x = torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pools: tuple[Any, ...] = (nn.MaxPool2d(3, 2), lambda x: nn.MaxPool2d(3, 2, return_indices=True)(x)[0])
    found = []
    for pool in pools:
        with DeconvnetRule():
            y = pool(x)
        found.append(torch.autograd.grad(y, x, torch.ones_like(y))[0])
    torch.testing.assert_close(found[0], found[1])
    with pytest.raises(DegenerateResult, match="unpooling is not defined here"), DeconvnetRule():
        nn.AdaptiveMaxPool2d(2)(x)
