from __future__ import annotations

from typing import Any, get_args

import captum.attr as captum
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, LayerNotFound, NotDifferentiable, ParameterError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.models.layers.last import find_last_spatial_layer
from vizcnn.probes.cam import Method, find_strongest_region

METHODS = get_args(Method)
Array = npt.NDArray[np.float64]


def gap_network(*, inplace: bool = False) -> Any:
    """Convolutions, global average pooling, one linear layer; always the same weights; float64 for the formulae."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(inplace=inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        ).double()


def model(network: nn.Module | None = None) -> vizcnn.Model:
    return vizcnn.Model(network or gap_network(), size=16, labels=list("abcde"))


def image(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


def parts(target: int, layer: int = 4) -> tuple[Array, Array]:
    """A (C, h, w) and g = d logit / d A, by running the network in two halves."""
    network = gap_network()
    values = network[: layer + 1](image()).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network[layer + 1 :](values)[0, target], values)
    return values.detach().numpy()[0], gradient.numpy()[0]


def enlarged(small: Array) -> Array:
    large = F.interpolate(torch.from_numpy(small)[None, None], (16, 16), mode="bilinear", align_corners=False)
    return large[0, 0].numpy()


def slowly(method: str, target: int, layer: int = 4) -> Array:
    """The papers' formulae, channel by channel and place by place."""
    a, g = parts(target, layer)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for y, x in np.ndindex(total.shape):
            if method == "grad-cam":
                weight = g[k].mean()
            elif method == "layer-cam":
                weight = max(g[k, y, x], 0)
            else:
                weight = 0.0
                for p in np.ndindex(total.shape):
                    below = 2 * g[k][p] ** 2 + a[k].sum() * g[k][p] ** 3
                    weight += (g[k][p] ** 2 / below if below else 0) * max(g[k][p], 0)
            total[y, x] += weight * a[k, y, x]
    return np.maximum(total, 0)


def values(found: vizcnn.Heatmap) -> npt.NDArray[np.float32]:
    one: npt.NDArray[np.float32] = found.values[0, 0]
    return one


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam"])
@pytest.mark.parametrize("layer", [1, 4])
def test_equal_to_the_papers_formulae(method: Method, layer: int) -> None:
    found = vizcnn.Cam(method=method, layer=str(layer))(model(), image(), 2)
    np.testing.assert_allclose(values(found), enlarged(slowly(method, 2, layer)), rtol=1e-5, atol=1e-8)


def test_grad_cam_equals_captum() -> None:
    network = gap_network()
    small = captum.LayerGradCam(network, network[4]).attribute(image(), target=2, relu_attributions=True)
    np.testing.assert_allclose(
        values(vizcnn.Cam()(model(), image(), 2)), enlarged(small[0, 0].detach().numpy()), rtol=1e-5
    )


def test_cam_is_exact() -> None:
    """Class weights times channels; its mean and the bias make the logit."""
    network = gap_network()
    a, _ = parts(2)
    expected = np.einsum("k,kyx->yx", network[7].weight[2].detach().numpy(), a)
    found = vizcnn.Cam(method="cam")(model(), image(), 2)
    np.testing.assert_allclose(values(found), enlarged(expected), rtol=1e-5, atol=1e-8)
    assert expected.mean() + network[7].bias[2].item() == pytest.approx(found.scores[0, 0], rel=1e-5)
    assert found.signed


def test_cam_is_refused_where_it_is_not_exact() -> None:
    wide = nn.Sequential(*gap_network()[:5], nn.Flatten(), nn.Linear(6 * 64, 5).double())
    deep: Any = nn.Sequential(*gap_network()[:7], nn.Linear(6, 6).double(), nn.ReLU(), nn.Linear(6, 5).double())
    with torch.no_grad():
        deep[7].weight.copy_(torch.eye(6))
        deep[7].bias.fill_(-0.01)
        deep[9].weight.fill_(1)
    for network in (wide, deep):
        with pytest.raises(DegenerateResult, match="CAM needs global average pooling and one linear layer behind '4'"):
            vizcnn.Cam(method="cam", layer="4")(model(network), image(), 2)


@pytest.mark.parametrize("layer", [1, 3])
def test_eigen_cam_projects_on_the_first_right_singular_vector(layer: int) -> None:
    """As in the paper, without centring: behind a ReLU, and where activations are negative too. By power iteration."""
    a, _ = parts(2, layer)
    rows = a.reshape(len(a), -1).T
    vector = np.ones(len(a))
    for _ in range(2000):
        vector = rows.T @ (rows @ vector)
        vector /= np.linalg.norm(vector)
    projected = (rows @ vector) * np.sign(rows.mean(0) @ vector)
    found = vizcnn.Cam(method="eigen-cam", layer=str(layer))(model(), image(), 2)
    expected = enlarged(np.maximum(projected.reshape(a.shape[1:]), 0))
    np.testing.assert_allclose(values(found), expected, rtol=1e-5, atol=1e-8)


def test_grad_cam_plus_plus_warns_where_it_divides_by_next_to_nothing() -> None:
    """Behind a ReLU its denominators are 2 or more; where activations add up to less than zero they cross zero."""
    network = gap_network()
    network[4] = nn.Identity()
    with torch.no_grad():
        network[3].bias.fill_(-60)
        network[7].weight.fill_(-0.5)
        network[7].weight[2] = 0.5
    with pytest.warns(VizcnnWarning, match=r"2 \+ sum\(A\) g, which is as low as -2.* at layer '4': .*behind a ReLU"):
        vizcnn.Cam(method="grad-cam++", layer="4")(model(network), image(), 2)
    with pytest.raises(
        DegenerateResult, match="zero everywhere"
    ):  # g < 0: nothing counts, so there is nothing to warn of
        vizcnn.Cam(method="grad-cam++", layer="4")(model(network), image(), 1)
    assert vizcnn.Cam(method="grad-cam++", layer="4")(model(), image(), 2).values.any()


def test_score_cam_shows_the_image_through_each_channel() -> None:
    network, x = gap_network(), image()
    a, _ = parts(2)
    numbers = []
    for channel in a:
        mask = enlarged(channel)
        mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else mask * 0
        numbers.append(network(x * torch.from_numpy(mask))[0, 2].item())
    weights = np.exp(numbers) / np.exp(numbers).sum()
    found = vizcnn.Cam(method="score-cam", batch=4)(model(), x, 2)
    expected = np.maximum(np.einsum("k,kyx->yx", weights, a), 0)
    np.testing.assert_allclose(values(found), enlarged(expected), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("method", "layer"), [(m, layer) for m in METHODS for layer in ("3", "4") if (m, layer) != ("cam", "3")]
)
def test_in_place_relu_changes_nothing(method: Method, layer: str) -> None:
    probe = vizcnn.Cam(method=method, layer=layer)
    a, b = (probe(model(gap_network(inplace=flag)), image(), 2) for flag in (False, True))
    np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_alone_and_in_company(method: Method) -> None:
    together = vizcnn.Cam(method=method)(model(), image(3), ["b", "c"])
    alone = vizcnn.Cam(method=method)(model(), image(3)[1], "c")
    np.testing.assert_allclose(together.values[1, 1], values(alone), rtol=1e-5, atol=1e-8)


def test_the_layer_is_the_last_with_space() -> None:
    assert find_last_spatial_layer(model(), image()) == "4"
    with pytest.raises(DegenerateResult, match="no layer of (Linear|Sequential) gives a map"):
        vizcnn.Cam()(vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(768, 2).double()), size=16), image(), 0)


def test_layers_that_cannot_be_mapped() -> None:
    for layer, error, message in (
        ("5", ParameterError, r"layer '5' has no space: its output is \(1, 6, 1, 1\)"),
        ("7", ParameterError, r"layer '7' has no space: its output is \(1, 5\)"),
        ("44", LayerNotFound, "no layer named '44'"),
    ):
        with pytest.raises(error, match=message):
            vizcnn.Cam(layer=layer)(model(), image(), 2)
    with pytest.raises(NotDifferentiable, match="target 1:2 has no gradient with respect to layer '4'"):
        vizcnn.Cam(layer="4")(model(), image(), "1:2")


def test_no_positive_evidence_is_refused_not_drawn() -> None:
    network = gap_network()
    with torch.no_grad():
        network[7].weight.copy_(-network[7].weight.abs())
    with pytest.raises(DegenerateResult, match="is zero everywhere: by this method nothing speaks for it"):
        vizcnn.Cam()(model(network), image(), 2)


def test_the_strongest_region_is_one_connected_piece() -> None:
    field = torch.zeros(10, 12)
    field[2:4, 3:6] = 0.5
    field[4, 6] = 1.0  # touches by a corner
    field[8, 0:3] = 0.9  # strong, but elsewhere
    assert find_strongest_region(field, 0.2) == Box(2, 3, 5, 7)
    assert find_strongest_region(-field - 1) is None


def test_the_object_is_found_where_it_is() -> None:
    """A network whose class is the mean of one convolution: the map lies on the bright square."""
    network: Any = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.fill_(0)
    photo = np.zeros((16, 16, 3))
    photo[4:8, 10:14] = 1
    found = vizcnn.Cam(method="cam")(vizcnn.Model(network, size=16), photo, 0)
    mark = found.marks[0][0]
    assert mark is not None
    assert mark.box == Box(4, 10, 8, 14)
    assert "middle right (x 10-14, y 4-8 px)" in found.describe()


def test_the_box_marks_a_region_and_the_sentence_its_strongest_part() -> None:
    """A network whose class is the mean of one convolution, of a photograph with a bright and a dim square."""
    network: Any = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.fill_(1 / 3)
        network[0].bias.fill_(0)
    photo = np.zeros((16, 16, 3))
    photo[4:8, 2:12], photo[4:8, 2:5] = 0.25, 1
    photo[12:14, 2:12] = 0.15
    found = vizcnn.Cam(method="cam")(vizcnn.Model(network, size=16, mean=[0] * 3, std=[1] * 3), photo, 0)
    mark = found.marks[0][0]
    assert mark is not None
    assert mark.box == Box(4, 2, 8, 12)
    assert mark.text == "the region above 20% of the maximum"
    assert "cam at 0 is strongest in the middle left (x 2-5, y 4-8 px); logit" in found.describe()


def test_a_map_without_a_positive_value_is_strongest_nowhere() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    nn.init.constant_(network[3].weight, -1.0)
    found = vizcnn.Cam(method="cam", layer="0")(vizcnn.Model(network, size=8), np.ones((8, 8, 3)), 0)
    assert found.values.max() < 0
    assert found.marks == ((None,),)
    assert "cam at 0 is above zero nowhere; logit" in found.describe()


def test_a_segmentation_network_through_a_function() -> None:
    network = gap_network()[:5]

    def area(output: Tensor) -> Tensor:
        return output[:, 1, 4, 4] + output[:, 0].mean((1, 2))

    found = vizcnn.Cam(layer="1")(vizcnn.Model(network, size=16), image(), area)
    assert found.values.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_agrees_with_full(method: Method, dtype: torch.dtype) -> None:
    full = vizcnn.Cam(method=method)(model(gap_network().float()), image().float(), 2)
    half = vizcnn.Cam(method=method)(model(gap_network().to(dtype)), image().float(), 2)
    np.testing.assert_allclose(half.values, full.values, atol=0.05 * np.abs(full.values).max())


def test_a_target_before_the_layers_last_call_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3))  # type: ignore[no-any-return]

    with pytest.raises(NotDifferentiable, match="is computed before layer 'relu' runs last"):
        vizcnn.Cam(layer="relu")(vizcnn.Model(Twice(), size=16), image().float(), "conv2:1")


def test_ctrl_c_in_the_last_run_of_score_cam_keeps_the_images_that_are_done() -> None:
    class Interrupting(nn.Module):
        def __init__(self, last: int) -> None:
            super().__init__()
            self.net, self.last, self.runs = gap_network(), last, 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            if self.runs == self.last:
                raise KeyboardInterrupt
            out: Tensor = self.net(x)
            return out

    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    probe = vizcnn.Cam(method="score-cam", layer="net.0", batch=1)
    finished = Interrupting(0)
    expected = probe(vizcnn.Model(finished, size=16), images, 1, progress=False)
    with pytest.raises(vizcnn.Interrupted) as caught:
        probe(vizcnn.Model(Interrupting(finished.runs), size=16), images, 1, progress=False)
    np.testing.assert_array_equal(caught.value.result.values, expected.values[:3])
