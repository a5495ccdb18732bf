"""Arithmetic: the numbers are those of the network, and the picture and files hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import enliven, picture
from support_networks import build
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, TargetError, UnsuitableNetwork
from vizcnn.probes import arithmetic
from vizcnn.results import UnitSums
from vizcnn.results.arithmetic_picture import write_short


class Residual(nn.Module):
    """A stem, pooling, a block with norms and a 1 x 1 shortcut, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 5, 2, 2)
        self.conv = nn.Conv2d(6, 8, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(6, 8, 1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = self.relu(self.norm(self.conv(x)) + self.shortcut(x))
        out: Tensor = self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


@pytest.fixture(scope="module")
def model() -> vizcnn.Model:
    network = build(Residual)
    enliven(network, picture((24, 24)))
    return vizcnn.Model(network, size=24, labels=("cat", "dog", "owl"))


def ask(model: vizcnn.Model, target: object = None) -> UnitSums:
    return vizcnn.Arithmetic()(model, picture((24, 24))[0], target=target, progress=False)


def test_a_unit_is_the_sum_of_its_products(model: vizcnn.Model) -> None:
    unit = ask(model, "conv:5@2,3").units[0]
    network = model.network
    assert isinstance(network, Residual)
    with torch.no_grad():
        pooled = F.max_pool2d(F.relu(network.stem(model.normalised(picture((24, 24))))), 2)
        plain, short = network.conv(pooled)[0, 5, 2, 3], network.shortcut(pooled)[0, 5, 2, 3]
        said = F.relu(network.norm(network.conv(pooled)) + network.shortcut(pooled))[0, 5, 2, 3]
    main, shortcut = unit.addends
    assert main.sums.sum() == pytest.approx(float(plain), abs=1e-5)
    assert np.allclose(main.patch, pooled[0, 3:6, 1:4, 2:5].numpy(), atol=1e-6)
    assert main.norm == "norm"
    assert main.reads == tuple(f"stem:{channel}, max pooling of 2 x 2, every 2" for channel in (3, 4, 5))
    assert shortcut.value + float(network.shortcut.bias[5].detach()) == pytest.approx(float(short), abs=1e-5)  # type: ignore[index]
    assert unit.after == pytest.approx(float(said), abs=1e-5)
    assert unit.network == float(said)


def test_each_image_has_its_own_numbers_and_what_the_unit_sees_is_marked(model: vizcnn.Model) -> None:
    images = picture((24, 24), count=2)
    found = vizcnn.Arithmetic()(model, images, target="stem:1@3,4", progress=False)
    with torch.no_grad():
        given = torch.relu(model.layer("stem")(model.normalised(images)))[:, 1, 3, 4]
    assert [unit.network for unit in found.units] == pytest.approx(given.tolist(), abs=1e-6)
    assert [unit.after for unit in found.units] == pytest.approx(given.tolist(), abs=1e-5)
    (mark,) = found.units[1].scene.marks
    assert mark is not None
    assert (mark.box.top, mark.box.left, mark.box.bottom, mark.box.right) == (4, 6, 9, 11)


def test_what_it_reads_of_the_image_says_whether_it_was_normalised() -> None:
    plain = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 2, 1)), size=8, mean=[0] * 3, std=[1] * 3)
    shifted = vizcnn.Model(plain.network, size=8, mean=[0.5] * 3, std=[0.5] * 3)
    for each, name in ((plain, "the input"), (shifted, "the normalised input")):
        (unit,) = vizcnn.Arithmetic()(each, picture((8, 8))[0], target="0:1@2,2", progress=False).units
        assert unit.addends[0].reads == tuple(f"channel {channel} of {name}" for channel in range(3))


def test_another_number_than_that_of_the_network_is_refused(
    model: vizcnn.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ask(model, "conv:5@2,3").units[0]
    size = abs(given.bias) + sum(abs(each.scale) * each.sizes.sum() for each in given.addends)
    read = arithmetic._read_maps
    monkeypatch.setattr(arithmetic, "_read_maps", lambda *asked: read(*asked) + 0.002 * size)
    with pytest.raises(
        DegenerateResult, match="by hand, conv comes to .*, and Residual gives .* Look at another layer"
    ):
        ask(model, "conv:5@2,3")


def test_padding_reads_zeros(model: vizcnn.Model) -> None:
    main = ask(model, "stem:0@0,0").units[0].addends[0]
    assert not main.inside[:2].any()
    assert not main.inside[:, :2].any()
    assert main.inside[2:, 2:].all()
    assert (main.patch[:, ~main.inside] == 0).all()


def test_the_largest_place_and_the_first_layer_are_the_defaults(model: vizcnn.Model) -> None:
    maps = model.network.stem(model.normalised(picture((24, 24))))[0].detach()  # type: ignore[operator]
    y, x = divmod(int(maps[4].argmax()), 12)
    assert ask(model, "stem:4").units[0].name == f"stem:4@{y},{x}"
    channel, y, x = (int(i) for i in np.unravel_index(int(maps.argmax()), maps.shape))
    assert ask(model).units[0].name == f"stem:{channel}@{y},{x}"


def test_a_class_is_its_unit_of_the_last_layer(model: vizcnn.Model) -> None:
    unit = ask(model, "dog").units[0]
    with torch.no_grad():
        assert unit.before == pytest.approx(float(model(picture((24, 24)))[0, 1]), abs=1e-5)
    assert unit.addends[0].layer == "fc"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("conv:8@0,0", "layer 'conv' has channels 0 to 7, got 8"),
        ("conv:0@0,6", "layer 'conv' is 6 x 6, got position 0,6"),
        ("energy(conv)", "arithmetic is of one unit, .* got energy"),
        ("p(dog)", "arithmetic is of one unit, .* got p"),
        (2 * vizcnn.target("conv:1@2,2"), "arithmetic is of one unit, .* got 2"),
        (vizcnn.target("conv:1@2,2") - vizcnn.target("conv:2@2,2"), "arithmetic is of one unit, .* got conv:1"),
    ],
)
def test_what_is_no_unit_is_refused(model: vizcnn.Model, target: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        ask(model, target)


def test_of_two_classes_that_one_unit_tells_apart_the_second_is_that_unit() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1), nn.Sigmoid())
    two = vizcnn.Model(network, size=8, labels=("cat", "dog"))
    (unit,) = vizcnn.Arithmetic()(two, picture((8, 8))[0], target="dog", progress=False).units
    assert unit.addends[0].layer == "1"
    with pytest.raises(TargetError, match="arithmetic is of one unit"):
        vizcnn.Arithmetic()(two, picture((8, 8))[0], target="cat", progress=False)


class Joined(nn.Module):
    """Two convolutions whose channels are joined before their ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.last = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.relu(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3))
        return out


def test_a_channel_is_the_layers_own_where_layers_are_joined() -> None:
    network, image = build(Joined), picture((8, 8))
    assert isinstance(network, Joined)
    model = vizcnn.Model(network, size=8, mean=[0] * 3, std=[1] * 3)
    with torch.no_grad():
        left, right = network.left(image)[0], network.right(image)[0]
    for target, given in (("left:2", left[2]), ("right:1", right[1]), ("relu:5", right[1])):
        (unit,) = vizcnn.Arithmetic()(model, image[0], target=f"{target}@3,4", progress=False).units
        assert unit.before == pytest.approx(float(given[3, 4]), abs=1e-5)
        assert unit.network == pytest.approx(max(float(given[3, 4]), 0), abs=1e-5)
        assert [addend.layer for addend in unit.addends] == ["left" if target.startswith("left") else "right"]
    y, x = divmod(int(right[1].argmax()), 8)
    assert vizcnn.Arithmetic()(model, image[0], target="right:1", progress=False).units[0].place == (y, x)


def test_a_pixels_class_is_a_unit_and_the_class_of_an_area_is_none() -> None:
    head = build(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    model, image = vizcnn.Model(head, size=8), picture((8, 8))[0]
    predicted = int(model(image[None])[0].argmax(0).flatten().mode().values)
    (unit,) = vizcnn.Arithmetic()(model, image, target=f"{predicted}@3,4", progress=False).units
    assert unit.name == f"{predicted}@3,4"
    assert unit.network == pytest.approx(float(model(image[None])[0, predicted, 3, 4].detach()), abs=1e-5)
    with pytest.raises(TargetError, match="which is a mean"):
        vizcnn.Arithmetic()(model, image, target=predicted, progress=False)


def test_a_dense_network_is_asked_for_its_predicted_class() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4), nn.Softmax(1))
    image = picture((8, 8))
    (unit,) = vizcnn.Arithmetic()(vizcnn.Model(network, size=8), image[0], progress=False).units
    assert unit.addends[0].patch.shape == (3, 8, 8)  # of the map that was flattened
    assert unit.activation == "softmax"
    assert unit.network == pytest.approx(unit.after, abs=1e-6)


def test_a_unit_that_reads_zeros_is_a_sum_as_well(model: vizcnn.Model) -> None:
    plain = vizcnn.Model(model.network, size=24, mean=[0] * 3, std=[1] * 3)
    found = vizcnn.Arithmetic()(plain, torch.zeros(3, 24, 24), target="stem:1@5,5", progress=False)
    (unit,) = found.units
    assert not unit.addends[0].sums.any()
    assert unit.before == unit.bias
    assert "0  stem: 75 products" in found.describe()


def test_what_is_no_sum_of_products_is_refused() -> None:
    with pytest.raises(TargetError, match="layer 'pool1' is a MaxPool2d, and .* There are conv1, conv2, fc1, fc2"):
        vizcnn.Arithmetic()(vizcnn.load("lecture"), torch.rand(1, 28, 28), target="pool1:3", progress=False)

    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) if float(x.sum()) > -1e9 else x.amax((2, 3))

    network = nn.Sequential(nn.Conv2d(3, 2, 1), Choosing())
    with pytest.raises(UnsuitableNetwork, match="cannot be followed"):
        vizcnn.Arithmetic()(vizcnn.Model(network, size=8), picture((8, 8))[0], target="0:0", progress=False)


@pytest.fixture(scope="module")
def paper() -> UnitSums:
    """A 6 x 6 image of two halves, and the 3 x 3 kernel of a vertical edge."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Conv2d(1, 1, 1))
    network[0].weight.data = torch.tensor([[[[1.0, 0, -1]] * 3]])
    model = vizcnn.Model(network, size=6, channels=1, mean=[0], std=[1])
    halves = torch.tensor([[[1.0, 1, 1, 0, 0, 0]] * 6])
    return vizcnn.Arithmetic()(model, halves, target="0:0@1,1", progress=False)


def test_on_paper_size_the_kernel_slides_over_all_places(paper: UnitSums) -> None:
    assert paper.pages == 2
    said = [text.get_text() for text in paper.figure(2).texts]
    numbers = [text for text in said if text.isdigit()]
    assert numbers == ["0", "3", "3", "0"] * 4


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, (1, 0)), (2, 1), ((1, 2), (0, 2))])
def test_the_sums_of_all_places_are_those_of_torch(stride: int, padding: int) -> None:
    conv, image = nn.Conv2d(1, 1, (3, 2), stride, padding, bias=False), picture((6, 5), 1)
    model = vizcnn.Model(nn.Sequential(conv), size=(6, 5), channels=1, mean=[0], std=[1])
    found = vizcnn.Arithmetic()(model, image[0], target="0:0@0,0", progress=False)
    np.testing.assert_allclose(found.units[0].addends[0].slide(), conv(image)[0, 0].detach(), atol=1e-6)
    framed = [ax for ax in found.figure(2).axes if len(ax.patches) and ax.patches[0].get_linewidth() > 2]
    assert len(framed) == 1  # the unit's own place


def test_a_large_map_has_no_page_of_places(model: vizcnn.Model) -> None:
    assert ask(model, "stem:0@3,3").pages == 1
    image = picture((9, 9), 1)
    large = vizcnn.Model(nn.Sequential(nn.Conv2d(1, 1, 3)), size=9, channels=1, mean=[0], std=[1])
    assert vizcnn.Arithmetic()(large, image[0], target="0:0", progress=False).pages == 1


def test_a_kernel_with_gaps_does_not_slide() -> None:
    gaps = vizcnn.Model(nn.Sequential(nn.Conv2d(1, 1, 2, dilation=2)), size=6, channels=1, mean=[0], std=[1])
    assert vizcnn.Arithmetic()(gaps, picture((6, 6), 1)[0], target="0:0", progress=False).pages == 1


def test_numbers_in_cells_are_as_exact_as_they_have_room() -> None:
    said = {3.0: "3", -0.25: "-.250", 0.0004: "4e-4", 1.999: "2.00", -12.34: "-12.3", 0: "0", 1234.5: "1234"}
    assert {value: write_short(value, 3) for value in said} == said
    short = {-0.256: "-.26", 1.96: "2.0", 12.3: "12", 0.001: ".00", 250: "250"}
    assert {value: write_short(value, 2) for value in short} == short


def test_the_picture_says_what_the_numbers_are(paper: UnitSums) -> None:
    figure = paper.figure(1)
    cells = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert cells == [*["1", "1", "0"] * 3, *["1", "0", "-1"] * 3, *["1", "0", "0"] * 3]
    assert [text.get_text() for text in figure.texts].count("3") == 4  # the sum, its line, in all, the network


def test_files_hold_the_numbers(model: vizcnn.Model, tmp_path: Path) -> None:
    found = ask(model, ["conv:5@2,3", "dog"])
    again = vizcnn.load_result(found.save(tmp_path / "unit.npz"))
    assert isinstance(again, UnitSums)
    assert again.describe() == found.describe()
    assert {name: each.tolist() for name, each in again.arrays().items()} == {
        name: each.tolist() for name, each in found.arrays().items()
    }
    rows = [row for row in found.records() if row["unit"] == "conv:5@2,3"]
    assert sum(row["adds"] for row in rows) + found.units[0].bias == pytest.approx(found.units[0].before)
