"""Sites: where units are read, and that the weights that lead into them give what the network itself gives there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import enliven, picture
from support_sites import Undecided, make_varied, read_by_hooks
from torch import Tensor, nn

import vizcnn
from vizcnn.graph.paths import Path
from vizcnn.graph.running import run_graph, run_steps, select_steps_behind
from vizcnn.graph.sites import Site, Sites, find_sites

ACTIVATE: dict[str, Callable[[float], float]] = {
    "": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky relu": lambda x: x if x > 0 else 0.01 * x,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.fixture(scope="module")
def varied() -> vizcnn.Model:
    return make_varied()


def sum_by_hand(path: Path, read: Tensor, unit: int, place: tuple[int, int]) -> float:
    """What a path adds to a unit at a place: read (C, h, w), number by number."""
    if not path.rows[0] <= unit < path.rows[1]:
        return 0.0
    row, total = unit - path.rows[0], 0.0
    weights = path.fold()[row]
    if path.weights is None:
        return float(weights[0, 0, 0]) * float(read[row, place[0], place[1]])
    inputs, height, width = weights.shape
    first = row // (len(path.scale) // path.groups) * inputs
    for c in range(inputs):
        for i in range(height):
            for j in range(width):
                y = place[0] * path.stride[0] - path.padding[0] + i * path.dilation[0]
                x = place[1] * path.stride[1] - path.padding[1] + j * path.dilation[1]
                if 0 <= y < read.shape[1] and 0 <= x < read.shape[2]:
                    total += float(weights[c, i, j]) * float(read[first + c, y, x])
    return total


def check_by_hand(model: vizcnn.Model, images: Tensor, found: Sites, tries: int) -> int:
    """Compare random units of all sites, at random places, with what plain hooks read there; how many were."""
    assert found.graph is not None
    random = np.random.default_rng(0)
    truth = read_by_hooks(model, images, found.sites)
    values = {path.value for site in found.sites for path in site.paths}
    with model.borrowed(), torch.no_grad():
        reads = run_graph(found.graph, images, values)
    compared = 0
    for site in found.sites:
        if site.missing:
            continue
        for _ in range(tries):
            unit, n = int(random.integers(site.shape[0])), int(random.integers(len(images)))
            y, x = (int(random.integers(side)) for side in (*site.shape[1:], 1, 1)[:2])
            total = float(site.bias[unit])
            for path in site.paths:
                total += sum_by_hand(path, reads[path.value][n].reshape(path.shape), unit, (y, x))
            expected = float(truth[site.name][n, unit].reshape(*site.shape[1:], *(1,) * (3 - len(site.shape)))[y, x])
            assert ACTIVATE[site.activation](total) == pytest.approx(expected, abs=1e-6, rel=1e-6), site.name
            compared += 1
    return compared


def test_weights_with_their_norms_give_what_the_network_gives(varied: vizcnn.Model) -> None:
    found = find_sites(varied)
    assert not found.missing
    assert [(site.name, site.read, site.activation) for site in found.sites] == [
        ("stem", "relu(stem)", "relu"),
        ("block1.conv1", "relu(block1.bn1)", "relu"),
        ("block1.conv2", "block1.relu", "relu"),
        ("block2.conv1", "relu(block2.bn1)", "relu"),
        ("block2.conv2", "block2.relu", "relu"),
        ("left", "left", ""),
        ("right", "right", ""),
        ("narrow", "narrow_bn", ""),
        ("wide", "act", "silu"),
        ("fc1", "relu6(fc1)", "relu6"),
        ("fc2", "output", ""),
    ]
    assert check_by_hand(varied, picture((40, 32), count=2).double(), found, 12) == 11 * 12


def test_a_leaky_relu_that_no_layer_gives_is_no_site_and_says_so(varied: vizcnn.Model) -> None:
    narrow = next(site for site in find_sites(varied).sites if site.name == "narrow")
    assert (narrow.paths[0].origins, narrow.paths[0].missing) == ((), "behind the operation 'leaky_relu'")


@pytest.mark.parametrize("name", ["tiny", "eleven", "lecture"])
def test_bundled_networks_are_followed_wholly(name: str) -> None:
    model = vizcnn.load(name)
    model.network.double()
    found = find_sites(model)
    assert [site.missing for site in found.sites] == [""] * len(found.sites)
    images = picture(model.input.size, model.input.channels, 2).double()
    assert check_by_hand(model, images, found, 2) == 2 * len(found.sites)
    weights = sum(p.numel() for p in model.network.parameters())
    assert sum(site.parameters for site in found.sites) == weights


@pytest.mark.parametrize(
    ("spec", "size", "sites"),
    [
        ("resnet18@random", 64, 18),
        ("resnet50@random", 64, 50),
        ("vgg11_bn@random", 32, 11),
        ("mobilenet_v2@random", 64, 53),
        ("densenet121@random", 32, 182),
        ("squeezenet1_1@random", 64, 27),
    ],
)
def test_networks_of_torchvision_are_followed_wholly(spec: str, size: int, sites: int) -> None:
    """Shortcuts, depthwise kernels, linear bottlenecks, joined channels, one ReLU for several places."""
    found = find_sites(vizcnn.load(spec, input_size=size))
    assert len(found.sites) == sites
    assert {site.missing for site in found.sites} == {""}
    assert {path.missing for site in found.sites for path in site.paths} == {""}
    assert len({site.name for site in found.sites}) == sites


@pytest.mark.parametrize("spec", ["resnet18@random", "mobilenet_v2@random"])
def test_torchvision_by_hand(spec: str) -> None:
    model = vizcnn.load(spec, input_size=32)
    model.network.double()
    enliven(model.network, picture((32, 32), count=2).double())
    found = find_sites(model)
    assert check_by_hand(model, picture((32, 32), count=2).double(), found, 1) == len(found.sites)


def test_activations_are_called_as_people_call_them() -> None:
    kinds = [
        nn.PReLU(2),
        nn.SELU(),
        nn.ELU(0.3),
        nn.CELU(0.7),
        nn.GELU("tanh"),
        nn.LeakyReLU(),
        nn.ReLU6(),
        nn.Hardtanh(),
    ]
    network = nn.Sequential(nn.Conv2d(3, 2, 1), *(layer for kind in kinds for layer in (kind, nn.Conv2d(2, 2, 1))))
    names = [site.activation for site in find_sites(vizcnn.Model(network, size=4)).sites]
    assert names == ["prelu", "selu", "elu", "celu", "gelu of tanh", "leaky relu", "relu6", "hardtanh", ""]


def test_pooling_between_a_site_and_its_readers_is_named() -> None:
    sites = find_sites(vizcnn.load("lecture")).sites
    assert [path.origins[0].via for site in sites for path in site.paths] == [
        (),
        ("max pooling of 2 x 2, every 2",),
        ("max pooling of 2 x 2, every 2",),
        (),
    ]
    assert sites[2].paths[0].shape == (50, 5, 5)  # a dense layer reads a map as a convolution as large as it


def test_what_cannot_be_followed_has_a_reason() -> None:
    pytest.importorskip("timm")
    model = vizcnn.load("timm:convnext_atto@random", input_size=64)
    found = find_sites(model)
    assert found.graph is not None
    assert "stages.0.blocks.0.mlp.fc1" in [site.name for site in found.sites]
    reasons = {path.missing for site in found.sites for path in site.paths} | {site.missing for site in found.sites}
    assert reasons == {"", "behind the operation 'permute'"}


def test_a_network_that_cannot_be_recorded_has_its_layers_as_sites() -> None:
    found = find_sites(vizcnn.Model(Undecided(), size=16))
    assert found.graph is None
    assert found.missing.startswith("a run without numbers fails")
    shapes = {site.name: site.shape for site in found.sites}
    assert shapes == {"inner.0": (8, 16, 16), "inner.3": (8, 8, 8), "inner.7": (5,), "output": (5,)}


def test_a_black_box_has_no_sites() -> None:
    found = find_sites(vizcnn.Model(lambda images: images.mean((1, 2, 3)), size=8))
    assert (found.sites, found.graph) == ((), None)
    assert "black box" in found.missing


def test_a_part_runs_again_from_any_site_on(varied: vizcnn.Model) -> None:
    """From each site the graph comes to the same output, and to the one that hooks give where a unit is set to zero."""
    found, images = find_sites(varied), picture((40, 32), count=3).double()
    assert found.graph is not None
    output = found.sites[-1].value
    with varied.borrowed(), torch.no_grad():
        for site in found.sites[:-1]:
            steps, beside = select_steps_behind(found.graph, site.value, [output])
            clean = run_graph(found.graph, images, {site.value, *beside, output})
            given = {value: clean[value] for value in {site.value, *beside}}
            assert torch.equal(run_steps(steps, given, [output])[output], clean[output])
            without = clean[site.value].clone()
            without[:, 1] = 0
            after = run_steps(steps, {**given, site.value: without}, [output])[output]
            if "(" not in site.read:
                handle = varied.layer(site.read).register_forward_hook(_zero_last(site))
                torch.testing.assert_close(after, varied(images))
                handle.remove()
            assert torch.equal(run_steps(steps, given, [output])[output], clean[output])  # given values stay


def _zero_last(site: Site) -> Callable[[Any, Any, Tensor], Tensor]:
    """A hook that sets channel 1 to zero at a module's last call; a block's ReLU is called twice."""
    calls, last = [0], 2 if site.read.endswith(".relu") else 1

    def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] < last:
            return out
        out = out.clone()
        out[:, 1] = 0
        return out

    return hook
