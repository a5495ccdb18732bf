"""FeatureMaps: the oracle is a plain forward hook on a copy of the network."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import DegenerateResult, LayerNotFound, NonFiniteResult, ParameterError, TargetError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.probes.feature_maps import _read_layers
from vizcnn.results import Scene

NETWORKS = [
    *("tiny", "lecture", "simple"),
    *("alexnet", "vgg11", "resnet18", "densenet121", "googlenet", "inception_v3", "efficientnet_b0"),
    *("convnext_tiny", "shufflenet_v2_x1_0"),
]


def hooked(model: vizcnn.Model, images: Tensor, layer: str) -> np.ndarray[Any, Any]:
    """What a plain forward hook reads on a copy of the network in eval mode, (N, C, h, w)."""
    copied = deepcopy(model)
    kept: list[Tensor] = []
    copied.layer(layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone()))
    with torch.no_grad():
        copied.network.eval()(copied.normalised(images))
    return kept[-1].numpy()


def images(count: int = 1, side: int = 16, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def scene(found: vizcnn.ImageGrid, i: int = 0) -> Scene:
    made = found.rows[i].scene
    assert made is not None
    return made


def test_equal_to_a_plain_hook_strongest_first() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    inputs = images(2)
    found = vizcnn.FeatureMaps(layers=("0", "3", "4"), channels=5)(model, inputs)
    for layer in ("0", "3", "4"):
        maps = hooked(model, inputs, layer)
        for i in range(2):
            strongest = np.argsort(-maps[i].max((1, 2)), kind="stable")[:5]
            np.testing.assert_array_equal(found.arrays()[f"image{i}.{layer}.channels"], strongest)
            np.testing.assert_allclose(found.arrays()[f"image{i}.{layer}"], maps[i, strongest], atol=1e-6)


def test_an_in_place_relu_changes_nothing_that_is_shown() -> None:
    inputs, plain = images(), small_cnn()
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    probe = vizcnn.FeatureMaps(layers=("0", "3"), channels=8)
    inplace, separate = (probe(vizcnn.Model(net, size=16), inputs).arrays() for net in (small_cnn(), plain))
    for key in inplace:
        np.testing.assert_array_equal(inplace[key], separate[key])
    assert inplace["image0.0"].min() < 0  # what a ReLU would have removed


def test_batches_do_not_change_the_maps() -> None:
    model, inputs = vizcnn.Model(small_cnn(), size=16), images(3)
    together = vizcnn.FeatureMaps()(model, inputs).arrays()
    for i in range(3):
        alone = vizcnn.FeatureMaps()(model, inputs[i]).arrays()
        for key, values in alone.items():
            np.testing.assert_array_equal(values, together[key.replace("image0", f"image{i}")])


def test_titles_name_the_strongest_unit_and_its_value() -> None:
    model, inputs = vizcnn.Model(small_cnn(), size=16), images()
    found = vizcnn.FeatureMaps(layers=("3",), channels=3)(model, inputs)
    maps = hooked(model, inputs, "3")[0]
    channel = int(maps.max((1, 2)).argmax())
    y, x = np.unravel_index(maps[channel].argmax(), maps.shape[1:])
    assert found.panels[0].titles[0] == f":{channel}@{y},{x}\n{maps[channel, y, x]:.3g}"
    assert found.panels[0].title == "3: 3 of 8 channels of 8 x 8, strongest first"
    value = f"activation {maps[channel, y, x]:.3g}"
    assert found.describe().startswith(f"tensor: the strongest unit of its layer is 3:{channel}@{y},{x} ({value}), ")
    as_target = vizcnn.target(f"3:{channel}@{y},{x}")
    occlusion = vizcnn.Occlusion(window=8, stride=8)(model, inputs, target=as_target)
    assert occlusion.scores[0, 0] == pytest.approx(maps.max())


def test_one_scale_per_layer_over_all_images() -> None:
    inputs = images(2) * torch.tensor([0.2, 1]).view(2, 1, 1, 1)
    found = vizcnn.FeatureMaps(layers=("0", "4"), channels=8)(vizcnn.Model(small_cnn(), size=16), inputs)
    for layer in ("0", "4"):
        panels = [panel for panel in found.panels if panel.key.endswith(f".{layer}")]
        values = np.stack([panel.values for panel in panels])
        expected = (min(0.0, float(values.min())), float(values.max()))
        assert {limits for panel in panels for limits in panel.limits} == {expected}
    assert found.panels[1].scale().startswith("activation: 0 to ")


def test_a_silent_layer_is_shown_as_such() -> None:
    conv = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -1)  # type: ignore[arg-type]
    found = vizcnn.FeatureMaps(layers=("1",))(vizcnn.Model(nn.Sequential(conv, nn.ReLU()), size=4), images(1, 4))
    assert set(found.panels[0].limits) == {(0.0, 1.0)}
    assert found.figure().axes


def test_channels_asked_for_by_number() -> None:
    model, inputs = vizcnn.Model(small_cnn(), size=16), images()
    found = vizcnn.FeatureMaps(layers=("3:6", "3:1", "0"), channels=2)(model, inputs)
    maps = hooked(model, inputs, "3")[0]
    expected = sorted([1, 6], key=lambda c: -float(maps[c].max()))
    assert found.arrays()["image0.3.channels"].tolist() == expected
    assert len(found.arrays()["image0.0.channels"]) == 2


def test_the_layers_shown_by_default_end_a_size() -> None:
    def layers(name: str) -> list[str]:
        model = vizcnn.load(name)
        found = vizcnn.FeatureMaps(channels=1)(model, images(1, model.input.size[0], model.input.channels))
        return [panel.key.removeprefix("image0.") for panel in found.panels]

    assert layers("tiny") == ["layer1", "layer2", "layer4"]  # layer3 has the size of layer4
    assert layers("lecture") == ["relu1", "pool1", "relu2", "pool2"]
    assert layers("simple") == ["relu1", "pool1"]


class Corner(nn.Module):
    """One 4 x 4 convolution of stride 4 that sums: its strongest unit is where the light is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        self.conv.weight.data.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def test_the_box_is_what_the_strongest_unit_sees_in_the_photographs_pixels() -> None:
    photo = np.zeros((80, 120, 3))  # the network sees the middle 80 x 80, scaled down by ten
    photo[40:80, 20:60] = 1
    found = vizcnn.FeatureMaps()(vizcnn.Model(Corner(), size=8), photo)
    (mark,) = scene(found).marks
    assert mark is not None
    assert mark.text == "conv:0@1,0"
    assert mark.box == Box(40, 20, 80, 60)
    assert "which sees the lower left (x 20-60, y 40-80 px)" in found.describe()


def test_what_lies_outside_the_box_cannot_change_the_unit() -> None:
    model, inputs = vizcnn.Model(small_cnn(), size=16), images()
    found = vizcnn.FeatureMaps(layers=("3",), channels=1)(model, inputs)
    (mark,) = scene(found).marks
    assert mark is not None
    y, x = map(int, mark.text.split("@")[1].split(","))
    box, channel = mark.box, found.panels[0].channels[0]
    changed = torch.rand(1, 3, 16, 16)
    inside = (..., slice(int(box.top), int(box.bottom)), slice(int(box.left), int(box.right)))
    changed[inside] = inputs[inside]
    before, after = (hooked(model, each, "3")[0, channel, y, x] for each in (inputs, changed))
    assert after == pytest.approx(before, abs=1e-6)
    assert (box.bottom - box.top) * (box.right - box.left) < 16 * 16


class Sorting(nn.Module):
    """Sorts rows by their mean, which no rule of receptive fields follows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 2, 3, padding=1), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)  # (N, C, h, w)
        order = y.mean((1, 3)).argsort(1)[:, None, :, None].expand_as(y)
        out: Tensor = self.last(y.gather(2, order) + y)
        return out


def test_a_box_that_would_take_long_is_left_out_and_said() -> None:
    found = vizcnn.FeatureMaps(layers=("conv", "last"))(vizcnn.Model(Sorting(), size=16), images(2))
    conv, last = scene(found).marks
    assert conv is not None
    assert last is None
    said = "what the units of last see would have to be measured, so no box is drawn for them; see: vizcnn layers"
    assert found.findings[-1] == said
    assert said not in vizcnn.FeatureMaps(layers=("conv",))(vizcnn.Model(Sorting(), size=16), images()).describe()


class Segmenter(nn.Module):
    """Has no classes: its output is a dictionary of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(x)}


def test_networks_that_are_no_classifiers() -> None:
    found = vizcnn.FeatureMaps()(vizcnn.Model(Segmenter(), size=16), images())
    assert found.arrays()["image0.conv"].shape == (2, 16, 16)
    assert found.provenance.targets == ((),)


def test_a_target_is_refused() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    with pytest.raises(ParameterError, match="this probe explains no target, got 3. Leave the target out"):
        vizcnn.FeatureMaps()(model, images(), target=3)
    answer = CliRunner().invoke(main, ["feature-maps", "sample:grace_hopper", "-t", "lemon"])
    assert answer.exit_code == 2
    assert "--target" not in CliRunner().invoke(main, ["feature-maps", "--help"]).output


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("conv3", LayerNotFound, "no layer named 'conv3' in lecture. Did you mean 'conv2'"),
        ("fc1", TargetError, r"layer 'fc1' gives \(1, 100\), not maps \(N, C, H, W\). Choose a layer before it"),
        ("conv1:25", TargetError, "layer 'conv1' has channels 0 to 24, got 25"),
    ],
)
def test_errors_say_what_to_do(layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"FeatureMaps on lecture: .*{message}"):
        vizcnn.FeatureMaps(layers=layers)(vizcnn.load("lecture"), images(1, 28, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"layers": ","}, "layers must name a layer, got none. Leave it out"),
        ({"layers": "conv1:x"}, "a layer is named as LAYER or LAYER:CHANNEL, got 'conv1:x'"),
        ({"layers": "conv1:"}, "a layer is named as LAYER or LAYER:CHANNEL, got 'conv1:'"),
        ({"layers": 3}, r"layers must be tuple\[str, ...\] or None, got 3"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"FeatureMaps: {message}"):
        vizcnn.FeatureMaps(**options)


def test_what_has_no_maps_or_bad_ones() -> None:
    dense = vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), size=4, name="dense")
    with pytest.raises(TargetError, match="no layer of dense gives maps"):
        vizcnn.FeatureMaps()(dense, images(1, 4))
    conv = nn.Conv2d(3, 2, 1)
    nn.init.constant_(conv.weight, -torch.inf)
    with pytest.raises(NonFiniteResult, match=r"layer '0' gives NaN or infinity for this image"):
        vizcnn.FeatureMaps(layers=("0",))(vizcnn.Model(nn.Sequential(conv, nn.ReLU()), size=4), images(1, 4))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_image_for_which_the_output_is_nan_is_left_out_wherever_it_stands(place: int) -> None:
    class Late(nn.Module):
        """Gives NaN for bright images, behind its layers."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            bright = x.mean((1, 2, 3)) > 0.5
            out: Tensor = self.conv(x).mean((2, 3)).masked_fill(bright[:, None], torch.nan)
            return out

    probe, network = vizcnn.FeatureMaps(layers=("conv",)), vizcnn.Model(Late(), size=16)
    inputs = images(3) / 3
    inputs[place] = 1 - inputs[place]
    with pytest.raises(NonFiniteResult, match="output for these images holds NaN") as alone:
        probe(network, inputs[place])
    with pytest.warns(VizcnnWarning, match="1 image was left out"):
        found = probe(network, inputs)
    assert len(found.rows) == 2
    ((_, reason),) = found.refused
    assert str(alone.value).endswith(reason)
    with pytest.raises(NonFiniteResult, match="output for these images holds NaN"):
        probe(network, inputs, strict=True)


def test_a_network_that_is_random_in_eval_mode_is_refused() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.after(nn.functional.dropout(self.conv(x)))
            return out

    model = vizcnn.Model(Dropping(), size=16)
    with pytest.raises(DegenerateResult, match="layer 'after' differs between two runs on the same image"):
        vizcnn.FeatureMaps(layers=("conv", "after"))(model, images())
    assert vizcnn.FeatureMaps(layers=("conv",))(model, images()).panels


def read(network: nn.Module, count: int = 3) -> list[Tensor]:
    """The maps of the first layer for each image, where several run at once."""
    model = vizcnn.Model(network, size=16)
    with model.borrowed():
        return [one["0"] for one in _read_layers(model, images(count), ["0"], check=False)]


def test_several_images_at_once_give_the_maps_of_each_alone() -> None:
    """As on a GPU, where that is faster."""
    network = small_cnn().eval()
    with torch.no_grad():
        expected = [network[0](image[None])[0] for image in images(3)]
    for found, maps in zip(read(network), expected, strict=True):
        torch.testing.assert_close(found, maps, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sequential answers for one image, but not for several")
def test_a_network_for_which_company_matters_is_read_image_by_image() -> None:
    class Mixing(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0, keepdim=True))

    class Single(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, -1)

    mixing = nn.Sequential(Mixing(3, 2, 1))
    nn.init.constant_(mixing[0].bias, 0.5)  # type: ignore[arg-type]
    assert all(torch.all(maps == 0.5) for maps in read(mixing))
    single = nn.Sequential(nn.Conv2d(3, 2, 1), Single(), nn.Linear(512, 2))
    for found, image in zip(read(single), images(3), strict=True):
        torch.testing.assert_close(found, single[0](image[None])[0].detach())


def test_ctrl_c_keeps_the_images_that_are_done(tmp_path: Path) -> None:
    class Interrupting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.runs = nn.Conv2d(3, 2, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            if self.runs == 7:
                raise KeyboardInterrupt
            out: Tensor = self.conv(x)
            return out

    with pytest.raises(vizcnn.Interrupted) as caught:
        vizcnn.FeatureMaps(layers=("conv",))(vizcnn.Model(Interrupting(), size=16), images(9))
    found = caught.value.result
    assert found.partial
    assert 1 <= len(found.rows) < 9
    assert vizcnn.load_result(found.save(tmp_path / "a.npz")).partial
    assert found.manifest()["partial"] is True


def test_on_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "maps.npz"
    arguments = [
        "feature-maps",
        "sample:grace_hopper",
        "--layers",
        "layer1, layer3:7",
        "--channels",
        "3",
        "-o",
        str(out),
    ]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output
    assert "layer3:7@" in answer.output
    with np.load(out) as saved:
        assert saved["image0.layer1"].shape == (3, 32, 32)
        assert saved["image0.layer3.channels"].tolist() == [7]


def shows_what_a_hook_reads(model: vizcnn.Model) -> None:
    inputs = images(1, model.input.size[0], model.input.channels)
    found = vizcnn.FeatureMaps(channels=2)(model, inputs)
    layer = found.panels[-1].key.removeprefix("image0.")
    expected = hooked(model, inputs, layer)[0][list(found.panels[-1].channels)]
    np.testing.assert_allclose(found.panels[-1].values, expected, atol=1e-5 * np.abs(expected).max())
    assert 1 < len(found.panels) <= 5
    assert all(scene(found).marks)
    assert found.figure().axes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name: str) -> None:
    shows_what_a_hook_reads(vizcnn.load(name if name in NETWORKS[:3] else f"{name}@random"))


@pytest.mark.parametrize("name", ["squeezenet1_0", "mobilenet_v2"])
def test_real_networks(name: str, data: Path) -> None:
    shows_what_a_hook_reads(vizcnn.load(f"{name}@{data / 'weights' / name}.fp16.pth"))
