"""Occlusion that recomputes only what a window can touch gives the numbers of running the whole network: on the
bundled networks here, on random graphs, the field's networks and awkward ones in the files beside this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published import Cifar, Darknet
from support import ROOT, Size, assert_same, check_same, enliven, picture, sizes
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, ParameterError


def sample(model: vizcnn.Model) -> Tensor:
    """The sample photograph as this model sees it (1, C, H, W)."""
    return model.prepared(vizcnn.open_photo("sample:grace_hopper"))[0][None]


def digits(model: vizcnn.Model) -> Tensor:
    """Two drawn digits (2, 1, 28, 28), light on dark as the bundled networks learned them."""
    files = [ROOT / "assets" / f"digit-{digit}.png" for digit in (3, 8)]
    return torch.stack([model.prepared(vizcnn.open_photo(file))[0] for file in files])


@pytest.mark.parametrize("fill", ["mean", "model", "blur", "#c04020"])
def test_a_residual_network_on_a_photograph(tiny: vizcnn.Model, fill: str) -> None:
    targets = ["lemon", "p(pizza)", "layer1:5@4,4", "layer2.0.conv1:3", "layer3:7", "layer4.0.relu1:1"]
    check_same(tiny, sample(tiny), targets, window=16, stride=12, fill=fill)


@pytest.mark.parametrize(("window", "stride"), [((3, 5), (2, 5)), (9, 4), (1, 1), (28, 28), ((28, 2), (28, 1))])
@pytest.mark.parametrize("name", ["lecture", "simple"])
def test_networks_for_digits(name: str, window: int | Size, stride: int | Size) -> None:
    model = vizcnn.load(name)
    images = digits(model) if window != 1 else digits(model)[:1]
    check_same(model, images, ["3", "p(5)", "conv1:4@11,12", "fc1:7"], window=window, stride=stride, fill="black")


def test_sums_of_targets_and_functions_of_the_output(tiny: vizcnn.Model) -> None:
    def margin(output: Tensor) -> Tensor:
        return output[:, 0] - output.amax(1)

    mixed = vizcnn.target("lemon") - 0.5 * vizcnn.target("layer3:2")
    check_same(tiny, sample(tiny), [margin, mixed, vizcnn.target("pizza") - vizcnn.target("lemon")], window=20)


def test_the_default_engine_and_options(tiny: vizcnn.Model) -> None:
    images = picture((64, 64), count=2)
    plain = vizcnn.Occlusion(engine="plain")(tiny, images)
    found = vizcnn.Occlusion()(tiny, images)
    assert plain.provenance.details["engine"] == "plain"
    assert found.provenance.targets == plain.provenance.targets
    targets = [row[0] for row in plain.provenance.targets]
    assert_same(found, plain, sizes(tiny, images, targets).max(1, keepdims=True))


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_batch_does_not_matter(tiny: vizcnn.Model, batch: int) -> None:
    check_same(tiny, sample(tiny), ["lemon", "layer2:3"], window=16, stride=16, batch=batch)


def test_the_result_says_what_was_saved_and_checked(tiny: vizcnn.Model) -> None:
    details = check_same(tiny, sample(tiny), ["lemon"], window=8, stride=8).provenance.details
    assert 0 < details["flops_ideal"] <= details["flops_executed"] < 1
    assert details["checked"] >= 1
    assert 0 <= details["error"] < 1e-4
    assert details["rank_correlation"] > 0.999


def test_double_precision_is_kept() -> None:
    model = vizcnn.load("tiny")
    model.network.double()
    images = picture((64, 64)).double()
    plain, found = (
        vizcnn.Occlusion(window=16, stride=16, engine=engine)(model, images, "lemon").values
        for engine in ("plain", "incremental")
    )
    assert np.abs(found - plain).max() < 1e-6 * np.abs(plain).max()


def test_a_target_that_no_window_moves_is_refused_alike() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    nn.init.constant_(network[0].bias, -1e3)  # type: ignore[arg-type]
    for engine in ("plain", "incremental"):
        with pytest.raises(DegenerateResult, match="no window changes the target 2:1 of tensor"):
            vizcnn.Occlusion(window=4, engine=engine)(vizcnn.Model(network, size=16), picture((16, 16)), "2:1")


@pytest.mark.parametrize("layer", ["0", "3"])
def test_a_unit_is_read_before_an_operation_in_place_changes_it(layer: str) -> None:
    images = picture((20, 20))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 18 * 18, 8)]
        network = nn.Sequential(*first, nn.ReLU(inplace=True), nn.Linear(8, 6))
        enliven(network, images)
    targets = ["0", *(f"{layer}:{channel}" for channel in range(8))]
    check_same(vizcnn.Model(network, size=20), images, targets, window=6, stride=4)


def test_a_unit_is_read_before_its_memory_changes_under_another_name() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    images = picture((20, 20))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), Detached(), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(6))
    network(images)
    enliven(network, images)
    check_same(vizcnn.Model(network, size=20), images, [0, *(f"0:{c}" for c in range(8))], window=6, stride=4)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ParameterError, match="Occlusion: engine"):
        vizcnn.Occlusion(engine="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "network", "size"), [("tiny_darknet.fp16.pth", Darknet, 128), ("cifar10_resnet20.pth", Cifar, 32)]
)
def test_chains_and_shortcuts_with_real_weights(data: Path, file: str, network: type[nn.Module], size: int) -> None:
    made = network().eval()
    made.load_state_dict(torch.load(data / "weights" / file, weights_only=True))
    model = vizcnn.Model(made, size=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    check_same(model, sample(model), [0, 9], window=size // 4, stride=size // 8)


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_torchvisions_networks_with_real_weights(data: Path, name: str) -> None:
    model = vizcnn.load(f"{name}@{data / 'weights' / name}.fp16.pth")
    photo = next((data / "images" / "photos").glob("*.jpg"))
    image = model.prepared(vizcnn.open_photo(photo))[0][None, :, 32:160, 32:192]
    check_same(model, image, [int(model.network.eval()(model.normalised(image)).argmax()), 7], window=32, stride=32)
