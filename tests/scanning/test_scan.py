"""Scans find exactly what a run that keeps every activation would, and leave the network as they found it."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import small_cnn
from support_scanning import QUIET, Tensors, assert_exact
from torch import Tensor, nn

from vizcnn.errors import (
    DegenerateResult,
    ImageError,
    LayerNotFound,
    NonFiniteResult,
    OutputError,
    ParameterError,
    ShapeError,
    TargetError,
)
from vizcnn.geometry import Box
from vizcnn.inputs.datasets import dataset
from vizcnn.inputs.images import open_photo
from vizcnn.models.batches import default_batch
from vizcnn.models.model import Model
from vizcnn.models.terms import Unit
from vizcnn.probes.top_images import TopImages
from vizcnn.scanning import Index, Part, compute_features, find_best, scan
from vizcnn.scanning.embedding import compute_knn_accuracy
from vizcnn.testing import delicate_model, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def model_of(network: nn.Module | None = None, size: int | tuple[int, int] = 16, **settings: Any) -> Model:
    return Model(small_cnn() if network is None else network, size=size, **settings)


def pictures(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def noise(place: Path, size: tuple[int, int] = (24, 20), seed: int = 0) -> Path:
    """A file of noise, width and height in px."""
    place.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(values).save(place)
    return place


@torch.no_grad()
def kept(model: Model, inputs: Tensor, layer: str) -> Tensor:
    """A layer's activations for each image alone, whatever stands behind it."""
    found: list[Tensor] = []
    handle = model.layer(layer).register_forward_hook(lambda _m, _i, out: found.append(out.clone()))
    with model.borrowed():
        for one in inputs:
            model(one[None])
    handle.remove()
    return torch.cat(found)


@torch.no_grad()
def outputs(model: Model, inputs: Tensor) -> Tensor:
    with model.borrowed():
        return torch.cat([model(one[None]) for one in inputs])


# what is found


def test_every_layer_is_exact_in_one_pass(tmp_path: Path) -> None:
    model, inputs = model_of(labels=list("abcde")), pictures(50)
    labels = torch.arange(50) % 3
    index = scan(model, Tensors(inputs, labels), tmp_path, top=7, batch=8, shard_size=20, **QUIET)
    assert index.complete
    assert index.layers == {"0": (8, 16, 16), "3": (8, 8, 8), "7": (5,), "output": (5,)}
    names = [["cat", "dog", "owl"][i % 3] for i in range(50)]
    assert index.labels == names
    for layer in ("0", "3", "7"):
        assert_close(index.tally(layer), kept(model, inputs, layer), names)
    assert_close(index.tally("output"), outputs(model, inputs), names)


def assert_close(tally: Any, activations: Tensor, labels: list[str] | None = None) -> None:
    """Exact but for the last digits, which differ between a run alone and one in company."""
    maps = activations.flatten(2) if activations.dim() > 2 else activations[:, :, None]
    scores = maps.amax(2)
    np.testing.assert_allclose(tally.values, scores.sort(0, descending=True).values[: tally.top], atol=1e-5)
    for c in range(maps.shape[1]):
        numbers, places = tally.images[:, c], tally.places[:, c]
        assert len(set(numbers.tolist())) == len(numbers)
        np.testing.assert_allclose(maps[numbers, c, places], tally.values[:, c], atol=1e-5)
    everything = maps.double().transpose(0, 1).flatten(1)
    np.testing.assert_allclose(tally.mean, everything.mean(1), atol=1e-5)
    np.testing.assert_allclose(tally.variance, everything.var(1, correction=0), atol=1e-4)
    for name, means in tally.class_means().items():
        members = [i for i, each in enumerate(labels or []) if each == name]
        np.testing.assert_allclose(means, maps[members].double().mean((0, 2)), atol=1e-5)


class Plain(nn.Module):
    """Halves and shifts what it is given, exactly, so that activations can be told to the last bit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, groups=3)
        nn.init.constant_(self.conv.weight, 0.5)
        nn.init.constant_(self.conv.bias, -0.25)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).amax((2, 3))  # type: ignore[no-any-return]  # (N, 3)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 15), st.integers(1, 9), st.integers(1, 4))
def test_any_batch_and_shard_size_is_exact_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, count: int, batch: int, shard: int, top: int, steps: int
) -> None:
    inputs = (pictures(count, 3, seed=count) * steps).round() / steps  # few values, so many ties
    model, folder = model_of(Plain(), 3), tmp_path_factory.mktemp("index")
    index = scan(model, inputs, folder, top=top, batch=batch, shard_size=shard, **QUIET)
    assert_exact(index.tally("conv"), inputs / 2 - 0.25)
    assert_exact(index.tally("output"), (inputs / 2 - 0.25).amax((2, 3)))


@pytest.mark.parametrize("rank", ["max", "mean", "sum"])
def test_what_images_are_ranked_by(tmp_path: Path, rank: Any) -> None:
    inputs = (pictures(30, 4) * 8).round() / 8
    index = scan(model_of(Plain(), 4), inputs, tmp_path, rank=rank, batch=4, **QUIET)
    assert_exact(index.tally("conv"), inputs / 2 - 0.25, rank)


def test_equal_images_come_in_their_order_also_across_batches_and_shards(tmp_path: Path) -> None:
    inputs = pictures(1, 4).repeat(30, 1, 1, 1)
    index = scan(model_of(Plain(), 4), inputs, tmp_path, top=12, batch=4, shard_size=10, **QUIET)
    for layer in ("conv", "output"):
        assert index.tally(layer).images.T.tolist() == [list(range(12))] * 3


def test_more_places_on_the_list_than_images(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(4), tmp_path, top=100, **QUIET)
    assert index.tally("0").values.shape == (4, 8)
    assert sorted(index.tally("0").images[:, 0].tolist()) == [0, 1, 2, 3]


def test_an_in_place_operation_behind_a_layer_does_not_change_what_is_seen(tmp_path: Path) -> None:
    model, inputs = model_of(), pictures(20)
    index = scan(model, inputs, tmp_path, **QUIET)
    assert index.tally("0").lowest.max() < 0  # ReLU(inplace=True) stands behind it
    assert_close(index.tally("0"), kept(model, inputs, "0"))


class Twice(nn.Module):
    """One ReLU behind two convolutions of other widths, which runs a third time at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))
        return y


@pytest.mark.parametrize("layers", [["relu"], ["relu", "output"], ["first", "relu"]])
def test_a_module_that_is_called_several_times_counts_at_its_last_call(tmp_path: Path, layers: list[str]) -> None:
    model, inputs = model_of(Twice()), pictures(20)
    index = scan(model, inputs, tmp_path, layers=layers, batch=8, **QUIET)
    assert index.layers["relu"] == (6,)
    assert_close(index.tally("relu"), outputs(model, inputs))


def test_statistics_do_not_depend_on_the_number_of_processes_that_read(tmp_path: Path) -> None:
    for i in range(12):
        noise(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", seed=i)
    (tmp_path / "photos" / "a" / "bad.png").write_text("no image")
    found = [
        scan(model_of(), tmp_path / "photos", tmp_path / str(n), batch=3, shard_size=5, loaders=n, progress=False)
        for n in (0, 2)
    ]
    assert found[0].digest == found[1].digest
    assert [number for number, _ in found[0].unreadable] == [found[0].names.index("a/bad.png")]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_default_type_of_torch_changes_nothing(tmp_path: Path, dtype: torch.dtype) -> None:
    model, inputs = model_of(), [*pictures(11), np.zeros((20, 24, 3), np.uint8)]
    usual = scan(model, inputs, tmp_path / "a", top=3, batch=5, shard_size=4, **QUIET)
    vectors, share = (
        compute_features(model, dataset(inputs), "7", False).vectors,
        compute_knn_accuracy(np.eye(4), np.arange(4), 2),
    )
    torch.set_default_dtype(dtype)
    try:
        index = scan(model, inputs, tmp_path / "b", top=3, batch=5, shard_size=4, **QUIET)
        assert [one.box for one in find_best(index, Unit("0", 1), 3)] == [
            one.box for one in find_best(usual, Unit("0", 1), 3)
        ]
        np.testing.assert_array_equal(compute_features(model, dataset(inputs), "7", False).vectors, vectors)
        assert compute_knn_accuracy(np.eye(4), np.arange(4), 2) == share
    finally:
        torch.set_default_dtype(torch.float32)
    assert index.digest == usual.digest


class Delayed(nn.Module):
    """NaN where an image's first value is one half, infinity where it is a quarter, in the second layer only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        mark = x[:, :1, :1, :1]
        return self.second(y / (mark != 0.25) + torch.where(mark == 0.5, torch.nan, 0)).mean((2, 3))  # type: ignore[no-any-return]


def test_images_that_give_nan_in_a_layer_are_left_out_there_and_counted(tmp_path: Path) -> None:
    inputs, model = pictures(20), model_of(Delayed())
    inputs[3, 0, 0, 0] = inputs[0, 0, 0, 0] = 0.5
    inputs[7, 0, 0, 0] = 0.25
    index = scan(model, inputs, tmp_path, batch=4, **QUIET)
    assert index.tally("first").counted.tolist() == [20, 0]
    good = [i for i in range(20) if i not in (0, 3, 7)]
    for layer in ("second", "output"):
        tally = index.tally(layer)
        assert tally.counted.tolist() == [17, 3]
        assert not {0, 3, 7} & set(tally.images.flatten().tolist())
    np.testing.assert_allclose(index.tally("output").mean, outputs(model, inputs[good]).double().mean(0), atol=1e-5)


def test_a_channel_without_any_finite_image_is_an_error_when_it_is_asked_for(tmp_path: Path) -> None:
    inputs = pictures(5)
    inputs[:, 0, 0, 0] = 0.5
    index = scan(model_of(Delayed()), inputs, tmp_path, **QUIET)
    assert len(find_best(index, Unit("first", 0), 3)) == 3
    with pytest.raises(NonFiniteResult, match="no image that can be read and gives layer 'second' finite activations"):
        find_best(index, Unit("second", 0), 3)


def test_tensors_of_nan_are_unreadable_images(tmp_path: Path) -> None:
    inputs = pictures(6)
    inputs[2, 1, 3, 3], inputs[4] = torch.nan, torch.inf
    index = scan(model_of(), inputs, tmp_path, **QUIET)
    reason = "the tensor holds NaN or infinity"
    assert [tuple(each) for each in index.unreadable] == [(2, reason), (4, reason)]
    assert index.tally("0").counted.tolist() == [4, 0]


# which layers


def test_layers_are_named_or_meant_by_patterns(tmp_path: Path) -> None:
    model, inputs = model_of(), pictures(3)
    for i, (layers, found) in enumerate(
        [(["3"], ["3"]), (["[03]", "output"], ["0", "3", "output"]), (["2", "0"], ["0", "2"]), (["*"], None)]
    ):
        index = scan(model, inputs, tmp_path / str(i), layers=layers, **QUIET)
        assert list(index.layers) == (found or [*map(str, range(8)), "output"])


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["conv1"], LayerNotFound, "no layer named 'conv1'"),
        (["outptu"], LayerNotFound, "Did you mean 'output'?"),
        ([], TargetError, "no layer of Sequential is left to look at"),
    ],
)
def test_layers_that_are_not_there(tmp_path: Path, layers: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scan(model_of(), pictures(2), tmp_path, layers=layers, **QUIET)
    assert not list(tmp_path.iterdir())


class Last(nn.Module):
    """A dense layer over the channels of each place, as in networks of the transformer kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense, self.folded = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Conv2d(1, 2, 1)
        self.tokens = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.tokens(self.conv(x).flatten(2).mT)  # (N, h w, 4)
        y: Tensor = self.dense(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (N, 6, h, w)
        self.folded(y.flatten(0, 1)[:, None])  # (6 N, 2, h, w)
        return y.mean((2, 3))  # (N, 6)


def test_channels_are_found_where_they_lie_and_layers_without_any_are_left_out_or_refused(tmp_path: Path) -> None:
    model, inputs = model_of(Last()), pictures(4)
    index = scan(model, inputs, tmp_path / "a", **QUIET)
    assert index.identity["layers"] == {"conv": [4, 14, 14], "dense": [6, 14, 14], "output": [6]}
    with torch.no_grad():
        dense = model.network.dense(model.network.conv(inputs).permute(0, 2, 3, 1))  # type: ignore[operator]
    torch.testing.assert_close(index.tally("dense").values[0], dense.flatten(0, 2).amax(0))
    with pytest.raises(TargetError, match=r"layer 'tokens' gives \(1, 4, 196\), channels and tokens without .*, not"):
        scan(model, inputs, tmp_path / "b", layers=["tokens"], **QUIET)
    with pytest.raises(TargetError, match="'folded' of Last did not run, or gives no tensor with one entry per image"):
        scan(model, inputs, tmp_path / "b", layers=["folded"], **QUIET)


class Namesake(nn.Module):
    def __init__(self, behind: bool) -> None:
        super().__init__()
        self.conv, self.output, self.behind = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), behind

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.conv(x).mean((2, 3)))
        return y.softmax(1) if self.behind else y


def test_a_layer_called_output_that_is_not_what_the_network_returns_is_not_mistaken_for_it(tmp_path: Path) -> None:
    assert "output" in scan(model_of(Namesake(False)), pictures(3), tmp_path / "a", **QUIET).layers
    assert "output" not in scan(model_of(Namesake(True)), pictures(3), tmp_path / "b", **QUIET).layers
    with pytest.raises(TargetError, match="is called 'output' but is not what the network returns"):
        scan(model_of(Namesake(True)), pictures(3), tmp_path / "c", layers=["output"], **QUIET)


# what is refused


@pytest.mark.parametrize(
    "options", [{"top": 0}, {"top": 101}, {"batch": 0}, {"shard_size": 0}, {"threads": 0}, {"loaders": -1}]
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ParameterError, match="must be"):
        scan(model_of(), pictures(2), tmp_path, **QUIET | options)


@pytest.mark.parametrize("loaders", [0, 1])
def test_tensors_that_are_no_inputs_are_refused_in_one_line(tmp_path: Path, loaders: int) -> None:
    cases = [
        ([*pictures(2), *pictures(2, 12)], "inputs of one scan share a size, got 12 x 12 .image 2. beside 16 x 16"),
        (pictures(3) * 255, r"holds values in \[0, 1\], got .*: the model does it"),
        (pictures(3)[:, :1], r"an input tensor is \(3, H, W\), got \(1, 16, 16\)"),
    ]
    for i, (inputs, message) in enumerate(cases):
        with pytest.raises(ShapeError, match=message) as error:
            scan(model_of(), inputs, tmp_path / str(i), loaders=loaders, progress=False)
        assert "\n" not in str(error.value)


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return (y - y.mean(0)).mean((2, 3))


class Random(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = nn.functional.dropout(self.conv(x))
        return y.mean((2, 3))


@pytest.mark.parametrize("network", [Mixing(), Random()])
def test_networks_that_are_random_or_mix_images_are_refused(tmp_path: Path, network: nn.Module) -> None:
    with pytest.raises(DegenerateResult, match="layer 'output' of the same image differs"):
        scan(model_of(network), pictures(6), tmp_path, **QUIET)


# boxes


def activation(model: Model, photo: Any, layer: str, channel: int, at: tuple[int, int]) -> float:
    return float(kept(model, model.prepared(open_photo(photo))[0][None], layer)[0, channel, at[0], at[1]])


def painted(pixels: Any, box: Box, margin: float = 0) -> Any:
    """The photograph with everything but the box, and so much around it, replaced by other noise."""
    other = np.random.default_rng(99).integers(0, 256, pixels.shape, np.uint8)
    top, left = max(0, int(np.floor(box.top - margin))), max(0, int(np.floor(box.left - margin)))
    inside = slice(top, int(np.ceil(box.bottom + margin))), slice(left, int(np.ceil(box.right + margin)))
    other[inside] = pixels[inside]
    return other


CONTRACTS: list[tuple[dict[str, Any], tuple[int, int], float]] = [
    # contract, width and height of the photographs, px that resampling reaches beyond a box
    ({"size": 16}, (16, 16), 0),
    ({"size": (12, 20)}, (20, 12), 0),
    ({"size": 16}, (30, 16), 0),  # cut out of the middle of a wide one
    ({"size": (12, 20)}, (20, 31), 0),  # of a tall one
    ({"size": 16, "resize": 20}, (20, 20), 0),
    ({"size": 16}, (64, 48), 3),
    ({"size": 16, "resize": 24}, (60, 90), 4),
    ({"size": (16, 24), "fit": "stretch"}, (72, 32), 3),
    ({"size": 16, "fit": "stretch"}, (8, 11), 1),
]


@pytest.mark.parametrize(("contract", "size", "margin"), CONTRACTS)
@pytest.mark.parametrize("layer", ["0", "3"])
def test_the_box_is_all_that_the_winning_unit_sees_of_the_photograph(
    tmp_path: Path, contract: dict[str, Any], size: tuple[int, int], margin: float, layer: str
) -> None:
    files = [noise(tmp_path / "photos" / f"{i}.png", size, i) for i in range(6)]
    model = Model(small_cnn(), **contract)
    index = scan(model, tmp_path / "photos", tmp_path / "index", **QUIET)
    clipped = 0
    for channel in range(8):
        one = find_best(index, Unit(layer, channel), 1)[0]
        assert one.box is not None
        assert one.at is not None
        assert one.photo.size == size[::-1]
        for edge in ("top", "left"):
            assert getattr(one.box, edge) >= getattr(one.seen, edge) >= 0
        assert one.box.bottom <= one.seen.bottom <= size[1]
        assert one.box.right <= one.seen.right <= size[0]
        clipped += one.box.bottom - one.box.top != one.box.right - one.box.left
        pixels = np.asarray(Image.open(files[one.number]))
        before = activation(model, pixels, layer, channel, one.at)
        assert before == pytest.approx(one.value, abs=1e-5)
        after = activation(model, painted(pixels, one.box, margin), layer, channel, one.at)
        assert after == pytest.approx(before, abs=1e-5)
        assert activation(model, flipped(pixels, one.box), layer, channel, one.at) != pytest.approx(before, abs=1e-3)


def flipped(pixels: Any, box: Box) -> Any:
    """The photograph with the box's contents turned to their negative."""
    other = pixels.copy()
    inside = slice(int(box.top), int(np.ceil(box.bottom))), slice(int(box.left), int(np.ceil(box.right)))
    other[inside] = 255 - other[inside]
    return other


def test_a_pixel_at_each_edge_of_the_box_can_change_the_unit(tmp_path: Path) -> None:
    network = small_cnn()
    nn.init.uniform_(network[0].weight, 0.1, 1)  # type: ignore[arg-type]
    nn.init.uniform_(network[3].weight, 0.1, 1)  # type: ignore[arg-type]
    model = Model(network, size=16)
    files = [noise(tmp_path / "photos" / f"{i}.png", (16, 16), i) for i in range(3)]
    index = scan(model, tmp_path / "photos", tmp_path / "index", **QUIET)
    one = find_best(index, Unit("3", 0), 1)[0]
    assert one.box is not None
    assert one.at is not None
    pixels = np.asarray(Image.open(files[one.number]))
    top, left, bottom, right = int(one.box.top), int(one.box.left), int(one.box.bottom), int(one.box.right)
    for rows, columns in (
        (slice(top, top + 1), slice(left, right)),
        (slice(bottom - 1, bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + 1)),
        (slice(top, bottom), slice(right - 1, right)),
    ):
        other = pixels.copy()
        other[rows, columns] = 255
        changed = activation(model, other, "3", 0, one.at)
        assert changed != pytest.approx(one.value, abs=1e-6)


def test_a_field_that_leaves_the_image_is_clipped(tmp_path: Path) -> None:
    photo = np.zeros((16, 16, 3), np.uint8)
    photo[0, 0] = 255
    network = nn.Sequential(nn.Conv2d(3, 1, 5, padding=2))
    nn.init.constant_(network[0].weight, 1)  # type: ignore[arg-type]
    index = scan(Model(network, size=16), [photo], tmp_path, **QUIET)
    one = find_best(Index.open(tmp_path, [photo]), Unit("0", 0), 1)[0]
    assert one.at == (0, 0)
    assert one.box == Box(0, 0, 3, 3)
    assert index.complete


def test_channels_without_places_have_no_box(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(4), tmp_path, **QUIET)
    for unit in (Unit("7", 1), Unit("", 2)):
        one = find_best(index, unit, 1)[0]
        assert one.box is None
        assert one.at is None
        assert one.seen == Box(0, 0, 16, 16)


# the index


def test_an_index_answers_from_the_disk_alone(tmp_path: Path) -> None:
    for i in range(6):
        noise(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", seed=i)
    made = scan(model_of(labels=list("vwxyz")), tmp_path / "photos", tmp_path / "index", **QUIET)
    index = Index.open(tmp_path / "index")
    assert index.digest == made.digest
    assert index.names == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    assert index.labels == ["a", "a", "a", "b", "b", "b"]
    assert index.contract == model_of().input
    assert [one.name for one in find_best(index, Unit("", "x"), 2)] == [
        one.name for one in find_best(made, Unit("", 2), 2)
    ]
    with pytest.raises(LayerNotFound, match="holds no layer '1'.*--layers 1"):
        index.tally("1")
    with pytest.raises(TargetError, match="channels 0 to 7, got 8"):
        find_best(index, Unit("0", 8), 1)


@pytest.mark.parametrize("kind", ["folder", "zip", "inner", "files", "labelled"])
def test_images_on_disk_are_found_again(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    for i in range(4):
        noise(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", seed=i)
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    sources: dict[str, Any] = {
        "folder": "photos",
        "zip": "x.zip",
        "inner": "x.zip/a",
        "files": ["photos/b/1.png", "photos/a/0.png"],
        "labelled": "photos",
    }
    labels = {"0.png": "x", "1.png": "y"} if kind == "labelled" else None
    scan(model_of(), sources[kind], tmp_path / "index", labels=labels, **QUIET)
    monkeypatch.chdir("/")
    index = Index.open(tmp_path / "index")
    one = find_best(index, Unit("0", 0), 1)[0]
    assert one.photo.size == (20, 24)
    if labels:
        assert index.labels == ["x", None, "y", None]


def test_other_images_than_those_scanned_are_refused(tmp_path: Path) -> None:
    noise(tmp_path / "photos" / "a.png")
    scan(model_of(), tmp_path / "photos", tmp_path / "index", **QUIET)
    noise(tmp_path / "photos" / "b.png")
    with pytest.raises(ImageError, match="holds other images than when"):
        _ = Index.open(tmp_path / "index").images
    batch = pictures(3)
    scan(model_of(), batch, tmp_path / "tensors", **QUIET)
    with pytest.raises(ImageError, match=r"were no files. Index.open\(folder, images=...\)"):
        _ = Index.open(tmp_path / "tensors").images
    assert len(Index.open(tmp_path / "tensors", batch.clone()).images) == 3
    with pytest.raises(ImageError, match="holds other images"):
        _ = Index.open(tmp_path / "tensors", pictures(3, seed=1)).images


def test_a_scan_goes_on_with_the_batches_and_threads_that_it_was_begun_with(tmp_path: Path) -> None:
    begun = scan(model_of(), pictures(10), tmp_path, batch=3, threads=2, part=Part(1, 2), shard_size=5, **QUIET)
    assert not begun.complete
    done = scan(model_of(), pictures(10), tmp_path, shard_size=5, **QUIET)
    assert done.complete
    assert {name: done.identity[name] for name in ("batch", "threads")} == {"batch": 3, "threads": 2}
    with pytest.raises(ParameterError, match="batch: 3 there, 4 here"):
        scan(model_of(), pictures(10), tmp_path, shard_size=5, batch=4, **QUIET)


def test_a_scan_runs_twice_as_many_images_at_once_as_a_bare_run(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(3), tmp_path, **QUIET)
    assert index.identity["batch"] == 2 * default_batch(index.size, torch.device("cpu"))


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no index. Make one: vizcnn scan IMAGES"):
        Index.open(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, name: str) -> None:
    for ask in (Index.open, lambda folder: scan(model_of(), pictures(3), folder, **QUIET)):
        with pytest.raises(OutputError, match="File name too long|embedded null") as caught:
            ask(tmp_path / name)
        assert str(caught.value).isprintable()


def test_an_index_is_small_and_its_manifest_plain(tmp_path: Path) -> None:
    scan(model_of(), pictures(30), tmp_path, shard_size=10, **QUIET)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["facts"]["complete"] is True
    assert manifest["identity"]["shards"] == [[0, 10], [10, 20], [20, 30]]
    assert {p.name for p in tmp_path.iterdir()} == {
        "manifest.json",
        "images.json",
        *(f"shard-0000{i}.safetensors" for i in range(3)),
    }


# no trace


@pytest.fixture
def no_children() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize("loaders", [0, 2])
def test_a_scan_leaves_no_trace(tmp_path: Path, loaders: int) -> None:
    model = delicate_model()
    before, threads, inputs = state_of(model), torch.get_num_threads(), pictures(20)
    untouched = inputs.clone()
    scan(model, inputs, tmp_path, batch=4, shard_size=8, loaders=loaders, threads=1, progress=False)
    assert state_of(model) == before
    assert torch.get_num_threads() == threads
    assert torch.equal(inputs, untouched)


@pytest.mark.usefixtures("no_children")
@pytest.mark.parametrize("loaders", [0, 2])
def test_neither_does_one_that_fails(tmp_path: Path, loaders: int) -> None:
    threads, inputs = torch.get_num_threads(), pictures(40)
    for last in (2, 5, 9):  # the first only tries whether two images fit into a run
        model = delicate_model(last)
        before = state_of(model)
        with pytest.raises(RuntimeError, match="fails on purpose"):
            scan(model, inputs, tmp_path / str(last), batch=4, loaders=loaders, threads=1, progress=False)
        after = state_of(model)
        assert {k: after[k] for k in after if k != "attributes"} == {k: before[k] for k in before if k != "attributes"}
        assert torch.get_num_threads() == threads


def test_loaders_end_with_an_error_although_the_error_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ShapeError) as kept_error:
        scan(model_of(), [*pictures(30), *pictures(1, 12)], tmp_path, batch=2, loaders=2, progress=False)
    assert not multiprocessing.active_children()
    assert kept_error.value.__traceback__ is not None


def test_ctrl_c_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = delicate_model()
    before, threads, runs = state_of(model), torch.get_num_threads(), [0]
    forward = type(model.network).forward

    def stopped(self: nn.Module, x: Tensor) -> Tensor:
        runs[0] += 1
        if runs[0] == 6:
            raise KeyboardInterrupt
        answer: Tensor = forward(self, x)
        return answer

    monkeypatch.setattr(type(model.network), "forward", stopped)
    with pytest.raises(KeyboardInterrupt):
        scan(model, pictures(40), tmp_path, batch=4, shard_size=4, loaders=2, threads=1, progress=False)
    assert state_of(model) == before
    assert torch.get_num_threads() == threads
    assert not multiprocessing.active_children()
    index = scan(model, pictures(40), tmp_path, batch=4, shard_size=4, loaders=0, threads=1, progress=False)
    undisturbed = scan(model, pictures(40), tmp_path / "other", batch=4, shard_size=4, threads=1, **QUIET)
    assert index.digest == undisturbed.digest


def at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What several threads make that begin together."""
    begin = threading.Barrier(len(works))

    def work(one: Callable[[], Any]) -> Any:
        begin.wait()
        return one()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work, one) for one in works]]


def test_scans_of_several_threads_find_what_each_finds_alone(tmp_path: Path) -> None:
    inputs, before = pictures(30), torch.get_num_threads()

    def work(i: int, folder: str) -> Callable[[], Any]:
        model = model_of(Plain() if i % 2 else None)
        options: Any = {"batch": 4, "shard_size": 10, "threads": 1 + i % 2, "loaders": i % 3, "progress": False}
        return lambda: scan(model, inputs, tmp_path / folder / str(i), **options).digest

    def ask(i: int) -> Callable[[], Any]:
        model, target = model_of(Plain() if i % 2 else None), "conv:1" if i % 2 else "3:1"
        return lambda: TopImages(count=4)(model, inputs, target, progress=False).arrays()["values"].tolist()

    works = range(4)
    alone = [each() for i in works for each in (work(i, "alone"), ask(i))]
    assert at_once([each for i in works for each in (work(i, "together"), ask(i))]) == alone
    assert torch.get_num_threads() == before
    assert not multiprocessing.active_children()


SCANNING = threading.Event()


class Announcing(Plain):
    """Says that a scan runs it, and takes its time."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            SCANNING.set()
            time.sleep(0.05)
        return super().forward(x)


def test_the_number_of_threads_of_one_scan_is_not_that_of_another(tmp_path: Path) -> None:
    """Torch has one for the process, which new Python threads take over."""
    inputs = pictures(20)

    def with_two() -> Index:
        return scan(model_of(Announcing()), inputs, tmp_path / "a", threads=2, batch=4, **QUIET)

    def with_what_torch_uses() -> Index:
        assert SCANNING.wait(10)
        return scan(model_of(Plain()), inputs, tmp_path / "b", batch=4, **QUIET)

    two, other = at_once([with_two, with_what_torch_uses])
    assert (two.identity["threads"], other.identity["threads"]) == (2, 1)
    assert at_once([torch.get_num_threads]) == [1]
