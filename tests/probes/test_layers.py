from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import vizcnn
from vizcnn import zoo
from vizcnn.cli.main import main
from vizcnn.errors import NetworkError, ParameterError
from vizcnn.models import _torchvision
from vizcnn.results import LayerTable, Table

NETWORKS = ["alexnet", "vgg11", "resnet18", "densenet121", "googlenet", "inception_v3", "efficientnet_b0"]
NETWORKS += ["convnext_tiny", "shufflenet_v2_x1_0"]


def table(model: vizcnn.Model) -> LayerTable:
    return vizcnn.Layers()(model, progress=False)


def by_hand(module: nn.Module, output: str) -> int:
    """Multiply-accumulates of a convolution or a linear layer, from the formulae."""
    shape = [int(n) for n in output.split("x")]
    if isinstance(module, nn.Conv2d):
        return int(np.prod(shape)) * int(np.prod(module.weight.shape[1:]))
    if isinstance(module, nn.Linear):
        return int(np.prod(shape)) * module.in_features
    return 0


def read(found: Table) -> list[dict[str, Any]]:
    """The rows with their cells by column."""
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def check(model: vizcnn.Model, found: Table) -> None:
    """What holds for every network: costs by hand, parameters complete, fields in every layer with space."""
    modules = model.layers()
    for row in read(found):
        module, name = modules[row["layer"]], row["layer"]
        assert row["type"] == type(module).__name__
        assert row["parameters"] == sum(p.numel() for p in module.parameters(recurse=False))
        assert row["parameters"] == (eval(row["formula"]) if row["formula"] else 0), name
        assert row["MACs"] == by_hand(module, row["output"]), name
        sums = int(np.prod([int(n) for n in row["output"].split("x")])) if row["MACs"] else 0
        assert row["additions"] == row["MACs"] - sums, name
        assert row["of biases"] == (sums if getattr(module, "bias", None) is not None else 0), name
        assert (row["field [px]"] is None) == (row["field stride [px]"] is None) == (row["field offset [px]"] is None)
    total = sum(p.numel() for p in model.network.parameters())
    assert f"{total:,} parameters" in found.describe()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision(name: str) -> None:
    model = vizcnn.load(f"{name}@random")
    found = table(model)
    check(model, found)
    published = _torchvision.import_models().get_model_weights(name).DEFAULT.meta
    total: dict[str, Any] = dict(zip(found.columns, found.total, strict=True))
    assert total["MACs"] == sum(row["MACs"] for row in read(found))
    assert total["MACs"] / 1e9 == pytest.approx(published["_ops"], abs=0.001)
    assert total["parameters"] == published["num_params"] or name == "inception_v3"


@pytest.mark.parametrize("name", zoo.list_names())
def test_the_bundled_networks(name: str) -> None:
    model = vizcnn.load(name)
    check(model, table(model))


@pytest.mark.parametrize("name", ["squeezenet1_0", "mobilenet_v2"])
def test_real_networks(name: str, data: Path) -> None:
    model = vizcnn.load(f"{name}@{data / 'weights' / name}.fp16.pth")
    check(model, table(model))


def test_the_rows_of_a_network_known_by_hand() -> None:
    model = vizcnn.load("lecture")
    found = table(model)
    first, *_, last = found.rows
    window, field = ((3, 3), (1, 1), (0, 0), (1, 1), 1), ((3, 3), (1.0, 1.0), (0.0, 0.0))
    units = 25 * 26 * 26
    assert first == (
        "conv1", "Conv2d", "25x26x26", *window, 250, "3*3*1*25 + 25", units * 9, units * 8, units, *field
    )  # fmt: skip
    assert last == ("fc2", "Linear", "10", *[None] * 5, 1010, "100*10 + 10", 1000, 990, 10, *[None] * 3)
    assert found.total == ("sum", *[""] * 7, 137_660, "", 1_639_350, 1_616_290, 23_060, "", "", "")


def test_text_leaves_out_what_all_layers_have() -> None:
    plain, grouped = table(vizcnn.load("lecture")), table(vizcnn.load("mobilenet_v2@random"))
    assert "groups" not in plain.lines()[2]
    assert "groups" in "".join(grouped.lines()[:3])
    assert "dilation" not in "".join(grouped.lines()[:3])
    assert grouped.records()[0].keys() == plain.records()[0].keys()


@pytest.fixture(scope="module")
def dense() -> LayerTable:
    return table(vizcnn.load("densenet121@random"))


def test_the_stages_of_the_diagram(dense: LayerTable) -> None:
    found = table(vizcnn.load("lecture"))
    assert [(stage.name, stage.channels, stage.size, stage.layers) for stage in found.stages] == [
        ("input", (1, 1), (28, 28), 0),
        ("conv1", (25, 25), (26, 26), 1),
        ("pool1", (25, 25), (13, 13), 0),
        ("conv2", (50, 50), (11, 11), 1),
        ("pool2", (50, 50), (5, 5), 0),
        ("fc1", (100, 100), (), 1),
        ("fc2", (10, 10), (), 1),
    ]
    many = dense.stages
    assert [stage.size for stage in many] == [(n, n) for n in (224, 112, 56, 28, 14, 7)] + [()]
    assert many[2].channels == (32, 256)  # a dense block grows from 64 by 32 at a time, and is halved after


def test_channels_that_come_last_are_channels_in_the_diagram() -> None:
    make = _torchvision.import_models().SwinTransformer
    swin = make([4, 4], 12, depths=[2, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=[7, 7], num_classes=5)
    sizes = {stage.size for stage in table(vizcnn.Model(swin.eval(), size=224)).stages}
    assert sizes == {(224, 224), (56, 56), (28, 28), (14, 14), (7, 7), (1, 1), ()}


def test_the_diagram_stands_above_the_first_page_only(dense: LayerTable) -> None:
    first, second = (dense.figure(page) for page in (1, 2))
    texts = [[text.get_text() for text in figure.texts] for figure in (first, second)]
    assert "input" in texts[0]
    assert "input" not in texts[1]


class Odd(nn.Module):
    """A parameter of its own, a layer that never runs, one that gives a pair, and a look at its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 2, 3), nn.Linear(5, 5)
        self.scale = Scale()
        self.halves = Halves()

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale(self.conv(x))
        return self.halves(y)[0] if float(x.sum()) < 1 else y  # type: ignore[no-any-return]


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.by, self.relu = nn.Parameter(torch.ones(2, 1, 1)), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(x) * self.by
        return out


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x[:, :1], x[:, 1:]


def test_odd_networks() -> None:
    found = table(vizcnn.Model(Odd(), size=8))
    kept = ("layer", "type", "output", "parameters", "formula", "MACs")
    assert [tuple(row[key] for key in kept) for row in read(found)] == [
        ("conv", "Conv2d", "2x6x6", 56, "3*3*3*2 + 2", 2 * 36 * 27),
        ("scale.relu", "ReLU", "2x6x6", 0, "", 0),
        ("scale", "Scale", "2x6x6", 2, "1*1*2", 0),
        ("halves", "Halves", "tuple", 0, "", 0),
    ]
    assert "30 of the parameters belong to layers that are not called" in found.describe()


class Own(nn.Module):
    """Has weights and products of its own, in no layer, and a layer that computes with those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = nn.functional.conv2d(x, self.kernels)
        return self.second(self.first(maps)).mean((2, 3))  # type: ignore[no-any-return]


def test_what_is_in_no_row_or_in_two_is_said() -> None:
    found = table(vizcnn.Model(Own(), size=8))
    sums = dict(zip(found.columns, found.total, strict=True))
    assert (sums["parameters"], sums["MACs"]) == (2 * (16 + 4), 2 * 36 * 16)
    said = found.describe()
    assert f"{108 + 16 + 4 + 4} parameters, {36 * 4 * 27 + 2 * 36 * 16:,} multiply-accumulates" in said
    assert "16 of the sum's parameters are shared by layers" in said
    assert "108 of the parameters and 3,888 of the multiply-accumulates are the network's own" in said
    assert "own" not in table(vizcnn.load("lecture")).describe()


class Attending(nn.Module):
    """Attention without weights, between two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.before(x.flatten(2).mT)  # (N, T, 6)
        return self.after(torch.softmax(tokens @ tokens.mT, 2) @ tokens)  # type: ignore[no-any-return]


def test_products_between_the_layers_inside_a_layer_have_a_row() -> None:
    found = table(vizcnn.Model(nn.Sequential(Attending()), size=4))
    assert {row["layer"]: row["MACs"] for row in read(found)} == {
        "0.before": 16 * 18, "0.after": 16 * 36, "0": 2 * 16 * 16 * 6,
    }  # fmt: skip


class Dense(nn.Module):
    """Dense layers whose inputs lie in memory in another order, and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.lstm, self.bare = (
            nn.Linear(3, 6),
            nn.LSTM(6, 5, batch_first=True),
            nn.Linear(5, 2, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x.flatten(2).mT)  # (N, T, 6)
        ways: Tensor = self.bare(self.lstm(tokens)[0].mT.contiguous().mT) + tokens[:, :, :2]
        return ways.mean(1)


def test_additions_are_counted_however_torch_computes_a_layer() -> None:
    found = read(table(vizcnn.Model(Dense(), size=4)))
    assert [(row["layer"], row["MACs"], row["additions"], row["of biases"]) for row in found] == [
        ("tokens", 16 * 18, 16 * 6 * 2, 16 * 6),
        ("lstm", 16 * (6 * 20 + 5 * 20), 16 * 20 * (5 + 4), 16 * 2 * 20),
        ("bare", 16 * 10, 16 * 2 * 4, 0),
    ]


def test_the_formula_of_a_transposed_convolution_has_its_channels_in_the_same_order() -> None:
    layers = nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 4, (3, 2)), nn.ConvTranspose2d(4, 8, 3, groups=2)
    found = read(table(vizcnn.Model(nn.Sequential(*layers), size=8)))
    assert [row["formula"] for row in found] == ["3*3*3*6 + 6", "3*2*6*4 + 4", "3*3*2*8 + 8"]


class Scaled(nn.Module):
    """Has a weight of its own beside layers in a list, which never runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.convs = nn.Parameter(torch.ones(1)), nn.ModuleList([nn.Conv2d(3, 3, 1) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.convs[1](self.convs[0](x))  # type: ignore[no-any-return]


def test_what_layers_in_a_list_cost_is_no_cost_of_the_layer_around_it() -> None:
    found = table(vizcnn.Model(nn.Sequential(Scaled()), size=8))
    assert {row["layer"]: row["MACs"] for row in read(found)} == {"0.convs.0": 9 * 64, "0.convs.1": 9 * 64, "0": 0}
    assert "1,152 multiply-accumulates" in found.describe()


class Aged(nn.Module):
    """Needs more than images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor, age: float) -> Tensor:
        return age * self.conv(x).mean((2, 3))  # type: ignore[no-any-return]


def test_a_network_that_needs_more_than_images() -> None:
    found = table(vizcnn.Model(Aged(), size=8, forward=lambda network, images: network(images, 3.0)))
    assert [(row["layer"], row["output"], row["MACs"]) for row in read(found)] == [("conv", "2x8x8", 6 * 64)]
    with pytest.raises(NetworkError, match="missing 1 required positional argument: 'age'"):
        table(vizcnn.Model(Aged(), size=8))


def test_the_command_line_needs_no_weights(tmp_path: Path) -> None:
    out = tmp_path / "layers.json"
    answer = CliRunner().invoke(main, ["layers", "-m", "resnet50", "-o", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "resnet50@random: 25,557,032 parameters, 4,089,184,256 multiply-accumulates" in answer.output
    saved = json.loads(out.read_text())
    assert saved["provenance"]["model"] == "resnet50@random"
    assert saved["rows"][0]["layer"] == "conv1"
    assert saved["rows"][0]["field [px]"] == [7, 7]


def test_numbers_are_arrays_and_texts_are_not() -> None:
    found = table(vizcnn.load("lecture"))
    arrays = found.arrays()
    fields = {"field [px]", "field stride [px]", "field offset [px]"}
    window = {"kernel", "stride", "padding", "dilation", "groups"}
    assert set(arrays) == {"parameters", "MACs", "additions", "of biases", *fields, *window}
    assert arrays["MACs"].shape == (len(found.rows),)
    assert arrays["field [px]"].shape == (len(found.rows), 2)
    assert np.isnan(arrays["field [px]"][-1]).all()


def test_networks_that_keep_tensors_or_cannot_be_copied() -> None:
    import threading

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.kept: list[Any] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = [self.conv(x)]
            return self.kept[0].mean((2, 3))  # type: ignore[no-any-return]

    network = Keeping()
    network(torch.rand(1, 3, 8, 8))
    assert vizcnn.Layers()(vizcnn.Model(network, size=8)).rows
    network.kept = [threading.Lock()]
    with pytest.raises(ParameterError, match="holds something that cannot be copied .*lock"):
        vizcnn.Layers()(vizcnn.Model(network, size=8))
