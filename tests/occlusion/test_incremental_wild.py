"""Operations that a change of the image passes through in unusual ways: the incremental engine follows them exactly or
says that it cannot, and the default engine is right on all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support import assert_same, enliven, picture, sizes
from support_graphs import LAYERS, Apply, Case, applied, cases, plainly, run, thorough
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ParameterError, VizcnnWarning

WILD: Mapping[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(3),
    "roll": lambda x: x.roll(3, 2),
    "transpose": lambda x: x.transpose(2, 3),
    "rotate": lambda x: x.rot90(1, (2, 3)),
    "sum along": lambda x: x.cumsum(3) / x.shape[3],
    "sort": lambda x: x.sort(2).values,
    "softmax of channels": lambda x: 4 * x.softmax(1),
    "softmax of a row": lambda x: x * x.softmax(3) * x.shape[3],
    "softmax of all places": lambda x: x + x.flatten(2).softmax(2).view_as(x) * 9,
    "norm of channels": lambda x: F.normalize(x, dim=1) * 2,
    "norm of all": lambda x: F.layer_norm(x, list(x.shape[1:])),
    "norm of groups": lambda x: F.group_norm(x, 2),
    "instance norm": F.instance_norm,
    "less the mean": lambda x: x - x.mean((2, 3), keepdim=True),
    "channels last": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]]).permute(0, 3, 1, 2),
    "gate of channels": lambda x: x * x.amax(1, keepdim=True).sigmoid(),
    "gate of columns": lambda x: x * x.amax(2, keepdim=True).sigmoid(),
    "where": lambda x: torch.where(x > 0.2, x, -x),
    "mask": lambda x: x.masked_fill(x < x.mean((1, 2, 3), keepdim=True), 0.1),
    "along channels": lambda x: x.cumsum(1) / x.shape[1],
    "neighbours": lambda x: F.local_response_norm(x, 3, alpha=0.5),
    "attention": lambda x: ((x.flatten(2).mT @ x.flatten(2) / 9).softmax(2) @ x.flatten(2).mT).mT.reshape(x.shape),
    "tokens": lambda x: x.flatten(2).cumsum(2).view_as(x) / x[0, 0].numel(),
    "blocks": lambda x: F.pixel_shuffle(x, 2),
    "unfolded": lambda x: F.unfold(x, 3, padding=1).view(len(x), -1, 9, *x.shape[2:]).mean(2),
    "smooth": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", antialias=True),
    "corners": lambda x: F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True),
    "wrapped": lambda x: F.pad(x, (2, 1, 1, 2), mode="circular"),
    "edges": lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"),
    "frame": lambda x: F.pad(x, (1, 1, 1, 1), value=0.7),
    "negative frame": lambda x: F.pad(x, (-1, 2, -1, 0)),
    "ramp": lambda x: x + torch.linspace(0, 1, x.shape[3], device=x.device),
    "ramps beside": lambda x: torch.cat([x[:, 1:], torch.linspace(0, 1, x.shape[2])[:, None].expand_as(x[:, :1])], 1),
    "middle": lambda x: x * x[:, :, x.shape[2] // 2, x.shape[3] // 2][:, :, None, None].sigmoid(),
    "a part changed": lambda x: torch.cat([x[:, :1], x[:, 1:]], 1).index_fill(2, torch.tensor([1]), 0.3),
    "a view changed": lambda x: _changed_through_a_view(x),
    "power mean": lambda x: F.lp_pool2d(x.relu(), 3, 2, 1) if min(x.shape[2:]) > 1 else x,
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    "sums": lambda x: torch.einsum("nchw,nchv->nchw", x, x) / x.shape[3],
    "shape decides": lambda x: F.max_pool2d(x, 2) if x.shape[2] > 12 else x * 0.5,
}


def _changed_through_a_view(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ::2].mul_(0.5)
    y[:, :1, 1:] += 1
    return y


def check_never_wrong(case: Case) -> None:
    case, plain = plainly(case)
    size = sizes(case.model, case.images, case.targets)
    with suppress(ParameterError):
        assert_same(run(case, "incremental"), plain, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VizcnnWarning)
        assert_same(run(case, "auto"), plain, size)


@thorough(0.3)
@given(cases(st.one_of(applied(WILD), LAYERS)))
def test_networks_with_unusual_operations_are_never_wrong(case: Case) -> None:
    check_never_wrong(case)


@pytest.mark.parametrize("name", WILD)
def test_an_unusual_operation_early_in_a_network_is_never_wrong(name: str) -> None:
    images = picture((26, 32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Apply(name, WILD[name]))
        channels = network(images).shape[1]
        network.extend([nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()])
        network.append(nn.Linear(32, 4))
        enliven(network, images)
    model = vizcnn.Model(network, size=(26, 32))
    check_never_wrong(Case(model, images, ("0", "2:3", "1:1@2,3"), {"window": 6, "stride": 4}))
