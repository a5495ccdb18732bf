"""Filters: the raw weights are the oracle; sorting is tested on kernels made for it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageSequence
from safetensors.torch import save_file
from support import small_cnn
from torch import nn

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import LayerNotFound, NonFiniteResult, ParameterError, WeightsError
from vizcnn.models.sources.bundled import CARD, read_card
from vizcnn.models.sources.bundled_networks import NETWORKS as NETWORKS_BUNDLED
from vizcnn.probes.filters import compute_hues, compute_orientations
from vizcnn.results import Film

NETWORKS = [
    *("tiny", "lecture", "simple"),
    *("alexnet", "vgg11", "resnet18", "densenet121", "googlenet", "inception_v3", "efficientnet_b0"),
    *("convnext_tiny", "shufflenet_v2_x1_0"),
]


def with_kernels(kernels: Any) -> vizcnn.Model:
    """A model whose only convolution has these kernels (K, C, h, w)."""
    weights = torch.as_tensor(np.asarray(kernels), dtype=torch.float32)
    conv = nn.Conv2d(weights.shape[1], weights.shape[0], weights.shape[2:])  # type: ignore[arg-type]
    conv.weight.data.copy_(weights)
    return vizcnn.Model(nn.Sequential(conv), size=32, channels=weights.shape[1], name="made")


def order(model: vizcnn.Model, **options: Any) -> list[int]:
    return list(vizcnn.Filters(**options)(model).panels[0].channels)


def raw(model: vizcnn.Model, layer: str) -> np.ndarray[Any, Any]:
    module = model.layer(layer)
    assert isinstance(module, nn.Conv2d)
    weights: np.ndarray[Any, Any] = module.weight.detach().numpy()
    return weights


def blob(*colour: float, size: int = 7) -> np.ndarray[Any, Any]:
    """A round spot of a colour on a kernel of zeros, (3, size, size)."""
    across = np.linspace(-1, 1, size)
    spot: np.ndarray[Any, Any] = np.array(colour)[:, None, None] * np.exp(
        -4 * (across[:, None] ** 2 + across[None] ** 2)
    )
    return spot


def edge(degrees: float, size: int = 7) -> np.ndarray[Any, Any]:
    """A smooth edge of this direction, counterclockwise from the horizontal, (size, size)."""
    across = np.linspace(-1, 1, size)
    along, up = across[None], -across[:, None]
    turned = up * np.cos(np.radians(degrees)) - along * np.sin(np.radians(degrees))
    made: np.ndarray[Any, Any] = np.tanh(3 * turned)
    return made


def test_rgb_kernels_are_the_raw_weights_in_colour() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    found = vizcnn.Filters()(model)
    np.testing.assert_array_equal(found.arrays()["filters"], raw(model, "0").transpose(0, 2, 3, 1))
    (shown,) = found.panels
    end = float(np.abs(raw(model, "0")).max())
    assert shown.limits == ((-end, end),) * 8
    assert "8 filters of 3 x 3, in colour" in shown.title


def test_grey_kernels_and_later_layers_are_the_raw_weights_of_one_channel() -> None:
    model = vizcnn.load("lecture")
    np.testing.assert_array_equal(vizcnn.Filters()(model).arrays()["filters"], raw(model, "conv1")[:, 0])
    found = vizcnn.Filters(layer="conv2", channel=7)(model)
    np.testing.assert_array_equal(found.arrays()["filters"], raw(model, "conv2")[:, 7])
    assert "input channel 7 of 25" in found.panels[0].title


def test_one_colour_of_a_first_layer_on_request() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    np.testing.assert_array_equal(vizcnn.Filters(channel=2)(model).arrays()["filters"], raw(model, "0")[:, 2])


def test_three_channels_of_a_later_layer_are_not_colours() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3))
    assert vizcnn.Filters(layer="1")(vizcnn.Model(network, size=16)).arrays()["filters"].ndim == 3


def test_in_grouped_layers_the_channel_is_counted_in_the_group() -> None:
    model = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4)), size=16)
    found = vizcnn.Filters(layer="1", channel=1)(model)
    np.testing.assert_array_equal(found.arrays()["filters"], raw(model, "1")[:, 1])
    assert "input channel 1 of 2 in each of 4 groups" in found.panels[0].title
    with pytest.raises(ParameterError, match="the kernels of '1' have input channels 0 to 1, got channel 2"):
        vizcnn.Filters(layer="1", channel=2)(model)


def test_a_result_does_not_follow_the_network() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    kept = vizcnn.Filters()(model).arrays()["filters"]
    before = kept.copy()
    for weights in model.network.parameters():
        nn.init.zeros_(weights)
    np.testing.assert_array_equal(kept, before)


def test_scales() -> None:
    kernels = np.ones((3, 1, 2, 2)) * np.array([1, -4, 0])[:, None, None, None]
    assert vizcnn.Filters()(with_kernels(kernels)).panels[0].limits == ((-4, 4),) * 3
    assert vizcnn.Filters(scale="each")(with_kernels(kernels)).panels[0].limits == ((-1, 1), (-4, 4), (-1, 1))


def test_sorted_by_norm() -> None:
    kernels = np.random.default_rng(0).normal(size=(6, 3, 3, 3)) * np.array([1, 5, 3, 4, 0.5, 2])[:, None, None, None]
    assert order(with_kernels(kernels), sort="norm") == [1, 3, 2, 5, 0, 4]
    assert order(with_kernels(kernels), sort="norm", most=2) == [1, 3]
    assert order(with_kernels(kernels)) == list(range(6))
    assert "the first 2 shown" in vizcnn.Filters(most=2)(with_kernels(kernels)).panels[0].title


@pytest.mark.parametrize(
    ("colour", "hue"),
    [((1, 0, 0), 0), ((1, 1, 0), 60), ((0, 1, 0), 120), ((0, 1, 1), 180), ((0, 0, 1), 240), ((-1, 0, 0), 180)],
)
def test_the_hue_of_a_coloured_spot(colour: tuple[float, float, float], hue: float) -> None:
    kernel = blob(*colour).transpose(1, 2, 0)[None].astype(np.float32)
    found, strength = compute_hues(kernel)
    assert found[0] == pytest.approx(hue, abs=1e-4)
    assert strength[0] == pytest.approx(1)
    assert compute_hues(kernel + 0.5)[0][0] == pytest.approx(hue, abs=1e-3)  # brightness has no hue


def test_sorted_by_hue_with_the_grey_kernels_last() -> None:
    grey, red, green = blob(1, 1, 1), blob(1, 0, 0), blob(0, 1, 0)
    blue, crimson, yellow = blob(0, 0, 1), blob(1, 0, 0.1), blob(1, 1, 0)
    kernels = np.stack([grey, blue, yellow, red, green, crimson])
    assert order(with_kernels(kernels), sort="hue") == [5, 3, 2, 4, 1, 0]


@pytest.mark.parametrize("size", [2, 3, 5, 7, 11])
@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_the_orientation_of_an_edge(degrees: float, size: int) -> None:
    found, coherence = compute_orientations(edge(degrees, size)[None])
    assert abs((found[0] - degrees + 90) % 180 - 90) < 1
    assert coherence[0] > 0.9


@pytest.mark.parametrize("degrees", [10, 30, 70, 110, 160])
def test_the_orientation_of_an_edge_between_the_diagonals(degrees: float) -> None:
    found, _ = compute_orientations(edge(degrees, 11)[None])
    assert abs((found[0] - degrees + 90) % 180 - 90) < 6


def test_neither_a_spot_nor_a_constant_has_an_orientation() -> None:
    _, coherence = compute_orientations(np.stack([blob(1, 1, 1)[0], np.ones((7, 7)), np.zeros((7, 7))]))
    assert (coherence < 1e-6).all()


def test_sorted_by_orientation_with_the_round_kernels_last() -> None:
    kernels = np.stack([edge(90), blob(1, 1, 1)[0], edge(135), edge(0), -edge(45)])[:, None]
    assert order(with_kernels(kernels), sort="orientation") == [3, 4, 0, 2, 1]
    in_colour = kernels * np.array([1, -0.5, 0.2])[None, :, None, None]
    assert order(with_kernels(in_colour), sort="orientation") == [3, 4, 0, 2, 1]


def test_before_and_after_training_side_by_side() -> None:
    after, before = vizcnn.load("simple"), vizcnn.load("simple@initial")
    found = vizcnn.Filters(sort="norm", compare="simple@initial")(after)
    arrays = found.arrays()
    by_norm = np.argsort(-np.linalg.norm(raw(after, "conv1").reshape(30, -1), axis=1))
    np.testing.assert_array_equal(arrays["filters.channels"], by_norm)
    np.testing.assert_array_equal(arrays["compared.channels"], by_norm)
    np.testing.assert_array_equal(arrays["filters"], raw(after, "conv1")[by_norm, 0])
    np.testing.assert_array_equal(arrays["compared"], raw(before, "conv1")[by_norm, 0])
    assert found.panels[0].limits == found.panels[1].limits  # one scale for both
    assert len(found.rows) == 1
    assert found.provenance.details["compared"] == f"simple@initial {before.weights_sha256()[:8]}"
    assert "differs most between the two" in found.describe()


def test_a_plain_network_of_a_function_is_compared_too(tmp_path: Path) -> None:
    """What was said of the first network's input is not asked for again."""
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    torch.save({"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}, tmp_path / "ones.pth")
    model = vizcnn.load(f"{file}:make", input_size=20, mean=[0.5] * 3)
    found = vizcnn.Filters(channel=0, compare=f"{file}:make@{tmp_path}/ones.pth")(model)
    np.testing.assert_array_equal(found.arrays()["compared"], np.ones((4, 3, 3)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "conv3"}, LayerNotFound, "no layer named 'conv3' in lecture. Did you mean 'conv2'"),
        (
            {"layer": "fc1"},
            ParameterError,
            "layer 'fc1' of lecture is Linear, not an nn.Conv2d. Choose one: conv1, conv2",
        ),
        ({"channel": 1}, ParameterError, "the kernels of 'conv1' have input channels 0 to 0, got channel 1"),
        ({"sort": "hue"}, ParameterError, "sort='hue' needs kernels in colour, and these are grey"),
        (
            {"compare": "simple"},
            ParameterError,
            r"'conv1' has kernels \(25, 1, 3, 3\) in lecture and \(30, 1, 5, 5\) in",
        ),
        ({"compare": "simple", "layer": "conv2"}, LayerNotFound, "no layer named 'conv2' in simple"),
        ({"compare": "lecture@first"}, WeightsError, "lecture has no weights tagged 'first'"),
    ],
)
def test_errors_say_what_to_do(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Filters on lecture: .*{message}"):
        vizcnn.Filters(**options)(vizcnn.load("lecture"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "size"}, "sort must be one of 'none', 'norm', 'hue', 'orientation', got 'size'"),
        ({"channel": -1}, "channel must be at least 0, got -1"),
        ({"most": 0}, "most must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"Filters: {message}"):
        vizcnn.Filters(**options)


def test_what_has_no_kernels_or_bad_ones() -> None:
    with pytest.raises(LayerNotFound, match="made has no convolution"):
        vizcnn.Filters()(vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), size=1, name="made"))
    with pytest.raises(NonFiniteResult, match="the weights of '0' of made hold NaN or infinity"):
        vizcnn.Filters()(with_kernels(np.full((2, 1, 3, 3), np.nan)))
    with pytest.raises(ParameterError, match="needs kernels of at least 2 x 2, got 1 x 3"):
        vizcnn.Filters(sort="orientation")(with_kernels(np.ones((2, 1, 1, 3))))
    with pytest.raises(ParameterError, match="this probe explains no target, got 3. Leave the target out"):
        vizcnn.Filters()(with_kernels(np.ones((2, 1, 3, 3))), target=3)


def test_half_precision_weights() -> None:
    model = vizcnn.Model(small_cnn().half(), size=16)
    assert vizcnn.Filters()(model).arrays()["filters"].dtype == np.float32


def test_the_difference_stands_beside_each_pair() -> None:
    trained, before = vizcnn.load("simple"), vizcnn.load("simple@initial")
    found = vizcnn.Filters(sort="norm", compare="simple@initial", difference=True)(trained)
    order = list(found.panels[0].channels)
    assert [panel.channels for panel in found.panels] == [found.panels[0].channels] * 3
    expected = (raw(trained, "conv1") - raw(before, "conv1"))[order, 0]
    np.testing.assert_allclose(found.arrays()["difference"], expected, atol=1e-7)
    assert found.rows[0].names == ("simple", "simple@initial", "the first less the second")
    largest = float(np.abs(expected).max())
    assert found.panels[2].limits == ((-largest, largest),) * 30  # its own: training may change little
    assert len(found.describe().splitlines()) == 2
    without = vizcnn.Filters(sort="norm", compare="simple@initial")(trained)
    assert without.rows[0].names == ("simple", "simple@initial")
    with pytest.raises(ParameterError, match="difference needs a second model. Name one: compare='simple@initial'"):
        vizcnn.Filters(difference=True)


@pytest.fixture
def snapshots(tmp_path: Path) -> list[Path]:
    """Four states of a training of `simple`, whose filter 3 goes from all 0.1 to all 0.4."""
    torch.manual_seed(0)
    network, files = NETWORKS_BUNDLED["simple"](10), []
    card = {"network": "simple", "input": read_card("simple")["input"], "labels": list("0123456789")}
    for step in (2, 10, 9, 100):
        with torch.no_grad():
            network.get_parameter("conv1.weight")[3] = 0.1 * (1 + [2, 9, 10, 100].index(step))
        files.append(tmp_path / f"simple-{step}.safetensors")
        save_file(network.state_dict(), files[-1], {CARD: json.dumps(card)})
    return [files[i] for i in (0, 2, 1, 3)]


def test_states_of_a_training_stand_side_by_side(snapshots: list[Path]) -> None:
    last = vizcnn.load(str(snapshots[-1]))
    pattern = str(snapshots[0].parent / "simple-*.safetensors")
    found = vizcnn.Filters(compare=pattern, difference=True)(last)
    ends = [found.arrays()[key][3, 0, 0] for key in ("filters", "compared", "compared-2", "compared-3", "difference")]
    np.testing.assert_allclose(ends, [0.4, 0.1, 0.2, 0.3, 0.3], atol=1e-6)  # in the order of numbers, itself left out
    assert found.rows[0].names == (
        *("simple-100.safetensors", "simple-2.safetensors", "simple-9.safetensors", "simple-10.safetensors"),
        "the first less the second",
    )
    assert len({panel.limits for panel in found.panels[:-1]}) == 1  # one scale for all states
    one_by_one = vizcnn.Filters(compare=",".join(map(str, snapshots[:-1])), difference=True)(last)
    assert found.arrays().keys() == one_by_one.arrays().keys()
    for key, values in found.arrays().items():
        np.testing.assert_array_equal(values, one_by_one.arrays()[key])
    with pytest.raises(ParameterError, match=r"compare: no file is named like .*none-\*.pth. Look at its folder"):
        vizcnn.Filters(compare=pattern.replace("simple-*.safetensors", "none-*.pth"))(last)
    with pytest.raises(ParameterError, match="is simple-100.safetensors alone. Name another state of it"):
        vizcnn.Filters(compare=pattern.replace("-*", "-100*"))(last)


@pytest.mark.parametrize("difference", [False, True])
def test_a_film_shows_the_states_in_their_order_on_one_scale(snapshots: list[Path], difference: bool) -> None:
    probe = vizcnn.Filters(compare=",".join(map(str, snapshots[:-1])), difference=difference, most=4)
    found = probe(vizcnn.load(str(snapshots[-1])))
    assert isinstance(found, Film)
    assert [len(row.panels) for row in found.frames] == [1 + difference] * 4
    states = [row.panels[0] for row in found.frames]
    np.testing.assert_allclose([panel.values[3, 0, 0] for panel in states], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert [panel.title.split()[0] for panel in states] == [file.name for file in snapshots]
    if difference:
        changes = [row.panels[1] for row in found.frames]
        np.testing.assert_allclose([panel.values[3, 0, 0] for panel in changes], [0, 0.1, 0.2, 0.3], atol=1e-6)
        np.testing.assert_allclose(changes[0].limits, [(-0.3, 0.3)] * 4, atol=1e-6)
    for panels in zip(*(row.panels for row in found.frames), strict=True):
        assert len({panel.limits for panel in panels}) == 1
    film = found.save(snapshots[0].parent / "film.gif")
    with Image.open(film) as opened:
        pictures = [np.asarray(frame.convert("L"), float) for frame in ImageSequence.Iterator(opened)]
    assert len(pictures) == 4
    assert all((one != other).any() for one, other in pairwise(pictures))
    assert vizcnn.probe_from(film) == probe
    again = vizcnn.load_result(found.save(snapshots[0].parent / "film.npz"))
    assert isinstance(again, Film)
    assert again.save(snapshots[0].parent / "again.gif").read_bytes() == film.read_bytes()


def test_the_command_line_writes_a_film_or_a_picture_of_states(snapshots: list[Path]) -> None:
    folder = snapshots[0].parent
    call = ["filters", "-m", str(snapshots[-1]), "--compare", f"simple@{snapshots[0]},{snapshots[1]}", "--most", "2"]
    for out, start in {"film.gif": b"GIF8", "film.png": b"\x89PNG"}.items():
        answer = CliRunner().invoke(main, [*call, "-o", str(folder / out)])
        assert answer.exit_code == 0, answer.output
        assert (folder / out).read_bytes().startswith(start)
    answer = CliRunner().invoke(main, ["filters", "-m", "simple", "-o", str(folder / "still.gif")])
    assert answer.exit_code == 1
    assert "would be an animation and needs frames. Add --frames 24, or --compare A,B for filters" in answer.output


def test_two_models_of_one_name_are_told_apart() -> None:
    found = vizcnn.Filters(compare="simple")(vizcnn.load("simple"))
    digest = vizcnn.load("simple").weights_sha256()[:8]
    assert found.rows[0].names == (f"simple {digest}",) * 2
    assert "no filter differs between the two" in found.describe()


def test_on_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "filters.npz"
    arguments = ["filters", "-m", "simple", "--compare", "simple@initial", "--sort", "norm", "-o", str(out)]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output
    assert "conv1: 30 filters; the median of their norms is 0.641 in simple, 0.585 in simple@initial" in answer.output
    with np.load(out) as saved:
        assert saved["compared"].shape == (30, 5, 5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name: str) -> None:
    model = vizcnn.load(name if name in NETWORKS[:3] else f"{name}@random")
    found = vizcnn.Filters(sort="norm", most=4)(model)
    first = next(n for n, m in model.layers().items() if isinstance(m, nn.Conv2d))
    weights = raw(model, first)
    expected = weights[found.panels[0].channels, ...]
    shown = found.arrays()["filters"]
    np.testing.assert_array_equal(shown, expected.transpose(0, 2, 3, 1) if shown.ndim == 4 else expected[:, 0])
    assert found.figure().axes


@pytest.mark.parametrize("name", ["squeezenet1_0", "mobilenet_v2"])
def test_real_networks(name: str, data: Path) -> None:
    model = vizcnn.load(f"{name}@{data / 'weights' / name}.fp16.pth")
    for sort in ("norm", "hue", "orientation"):
        found = vizcnn.Filters(sort=sort, most=8)(model)
        assert found.arrays()["filters"].shape[0] == 8
