from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, TargetError

Array = npt.NDArray[np.float64]


def zeiler_like(*, inplace: bool = False, channels: int = 3) -> Any:
    """Convolutions and overlapping pools (3x3, stride 2), as in the paper; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 4, 3),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(3, 2),
        ).double()


def image(channels: int = 3) -> Tensor:
    return torch.rand(1, channels, 20, 20, generator=torch.Generator().manual_seed(1)).double()


def model(network: nn.Module | None = None, **more: Any) -> vizcnn.Model:
    return vizcnn.Model(network or zeiler_like(), size=20, **more)


def unpooled(signal: Array, before: Array, side: int = 3, step: int = 2) -> Array:
    """Each value to the place of its window's maximum; the strongest wins where several meet."""
    placed = np.zeros_like(before)
    for c, i, j in np.ndindex(signal.shape):
        window = before[c, i * step : i * step + side, j * step : j * step + side]
        row, column = np.unravel_index(window.argmax(), window.shape)
        at = c, i * step + row, j * step + column
        placed[at] = max(placed[at], signal[c, i, j])
    return placed


def transposed(signal: Array, kernel: Array) -> Array:
    """A convolution's kernels, flipped over: every output value spreads its kernel over the input."""
    _, inputs, k, _ = kernel.shape
    spread = np.zeros((inputs, signal.shape[1] + k - 1, signal.shape[2] + k - 1))
    for o, y, x in np.ndindex(signal.shape):
        spread[:, y : y + k, x : x + k] += signal[o, y, x] * kernel[o]
    return spread


def slowly(x: Tensor, channel: int) -> tuple[Array, tuple[int, int]]:
    """The paper's projection of layer 5's strongest neuron of a channel, step by step."""
    network = zeiler_like()
    values = [x]
    for layer in network:
        values.append(layer(values[-1]))
    maps = [v.detach().numpy()[0] for v in values]
    y, column = np.unravel_index(maps[6][channel].argmax(), maps[6][channel].shape)
    signal = np.zeros_like(maps[6])
    signal[channel, y, column] = maps[6][channel, y, column]
    signal = np.maximum(unpooled(signal, maps[5]), 0)
    signal = transposed(signal, network[3].weight.detach().numpy())
    signal = np.maximum(unpooled(signal, maps[2]), 0)
    return transposed(signal, network[0].weight.detach().numpy()), (int(y), int(column))


def whole(found: vizcnn.ImageGrid) -> Array:
    """The projection put back into a field of the input's size."""
    box = found.rows[0].scene.marks[0].box  # type: ignore[union-attr]
    field = np.zeros((3, 20, 20))
    tile = found.panels[0].values[0].transpose(2, 0, 1)
    field[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = tile
    return field


@pytest.mark.parametrize("channel", [0, 1, 2, 3])
def test_equal_to_a_slow_one_from_the_paper(channel: int) -> None:
    expected, (y, x) = slowly(image(), channel)
    found = vizcnn.Deconvnet()(model(), image(), f"5:{channel}")
    np.testing.assert_allclose(whole(found), expected, rtol=1e-5, atol=1e-8)
    assert found.panels[0].title == f"5:{channel}@{y},{x}"
    exactly = vizcnn.Deconvnet()(model(), image(), f"5:{channel}@{y},{x}")
    np.testing.assert_array_equal(whole(exactly), whole(found))


def test_it_is_not_the_gradient_where_pools_overlap() -> None:
    found = vizcnn.Deconvnet()(model(), image(), "5:1")
    saliency = vizcnn.Saliency(method="deconvnet", sign="signed")(model(), image(), found.panels[0].title)
    activation = float(found.panels[0].titles[0].split()[1])
    by_gradient = saliency.values[0, 0] * activation
    assert np.abs(whole(found).sum(0) - by_gradient).max() > 0.05 * np.abs(by_gradient).max()


def test_in_place_relu_changes_nothing() -> None:
    a, b = (vizcnn.Deconvnet()(model(zeiler_like(inplace=flag)), image(), "4:2") for flag in (False, True))
    np.testing.assert_array_equal(whole(a), whole(b))


def test_functional_relus_and_pools_are_reached() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = zeiler_like()

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.net[0](x)), 3, 2)
            return F.max_pool2d(torch.relu_(self.net[3](x)), 3, stride=2).mean((2, 3))

    def total(output: Tensor) -> Tensor:
        return output[:, 1]

    modules = nn.Sequential(zeiler_like(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    a, b = (vizcnn.Deconvnet()(model(net), image(), total) for net in (Functional(), modules))
    np.testing.assert_allclose(whole(a), whole(b), rtol=1e-6)


def test_units_are_those_of_the_normalised_input() -> None:
    x = image()
    normalising = model(mean=(0.2, 0.3, 0.4), std=(0.5, 0.25, 0.2))
    given = normalising.normalised(x)
    found = vizcnn.Deconvnet()(normalising, x, "5:0")
    expected, _ = slowly(given, 0)
    np.testing.assert_allclose(whole(found), expected, rtol=1e-5, atol=1e-8)


def test_grey_networks_several_targets_and_the_words(tmp_path: Any) -> None:
    grey = model(zeiler_like(channels=1), channels=1)
    found = vizcnn.Deconvnet()(grey, image(1), ["1:0", "4:2"])
    assert [panel.values.ndim for panel in found.panels] == [3, 3]
    first, second = (panel.title for panel in found.panels)
    assert found.describe().startswith(f"tensor: the pattern of {first} (activation ")
    assert " lies in the middle left (x " in found.describe()
    assert f"; of {second} (activation " in found.describe()
    assert found.save(tmp_path / "a.png").exists()


def test_what_cannot_be_projected() -> None:
    with pytest.raises(DegenerateResult, match="is not active in tensor .its value is .*Choose an active unit"):
        vizcnn.Deconvnet()(model(), image(), "0:0@0,0")
    with pytest.raises(TargetError, match="layer '5' has channels 0 to 3, got 9"):
        vizcnn.Deconvnet()(model(), image(), "5:9")
    leaky = nn.Sequential(nn.Conv2d(3, 2, 3), nn.LeakyReLU(), nn.Conv2d(2, 2, 3))
    with pytest.raises(DegenerateResult, match="uses leaky_relu, but this method's rule is defined for ReLU only"):
        vizcnn.Deconvnet()(model(leaky), image().float(), "2:0")


def test_a_name_like_a_formula_is_drawn_as_it_is(tmp_path: Any) -> None:
    photo = vizcnn.Photo(np.random.default_rng(0).random((20, 20, 3), np.float32), "cost$^$.png")
    assert vizcnn.Deconvnet()(model(), photo, "4:2").save(tmp_path / "a.png").exists()


def test_units_and_images_are_projected_in_one_run() -> None:
    network, seen = zeiler_like(), list[int]()
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    images = torch.cat([image(), 1 - image()])
    vizcnn.Deconvnet()(model(network), images, ["5:0", "5:1", "2:3"])
    assert seen[-2:] == [6, 6]  # where each channel is strongest, and the way back from there


def test_ctrl_c_keeps_the_images_whose_units_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizcnn.probing.attribution.default_batch", lambda _size, _device: 3)
    network, seen = zeiler_like(), list[int]()

    def interrupt(_module: Any, inputs: Any, _output: Any) -> None:
        seen.append(len(inputs[0]))
        if seen.count(3) == 2 and len(inputs[0]) == 1:
            raise KeyboardInterrupt

    network.register_forward_hook(interrupt)
    images = torch.cat([image(), 1 - image()])
    with pytest.raises(vizcnn.Interrupted) as caught:
        vizcnn.Deconvnet()(model(network), images, ["5:0", "5:1"])  # three of four
    found = caught.value.result
    assert found.partial
    assert len(found.rows) == 1
    assert len(found.rows[0].panels) == 2


def test_without_a_target_each_image_has_the_strongest_units_of_some_layers() -> None:
    """Of the two pools and two ReLUs in this network the last of each size of map."""
    x = torch.cat([image(), 1 - image()])
    found = vizcnn.Deconvnet()(model(), x)
    network, values = zeiler_like(), [x]
    for layer in network:
        values.append(layer(values[-1]))
    for i in range(2):
        names = []
        for layer in (1, 2, 4, 5):  # 18 x 18, 8 x 8, 6 x 6, 2 x 2
            maps = values[layer + 1][i]
            c, y, column = np.unravel_index(int(maps.argmax()), maps.shape)
            names.append(f"{layer}:{c}@{y},{column}")
        assert [panel.title for panel in found.rows[i].panels] == names
        assert list(found.provenance.targets[i]) == names  # not what was asked, but what was explained
        assert list(found.provenance.target_specs[i]) == names
    again = vizcnn.Deconvnet()(model(), x[:1], list(found.provenance.target_specs[0]))
    for key, tile in again.arrays().items():
        np.testing.assert_allclose(tile, found.arrays()[key], rtol=1e-6)
    assert vizcnn.Deconvnet().identify_call(model(), x).target_specs == found.provenance.target_specs


def test_of_many_layers_some_are_explained_and_the_sentence_names_three() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        steps = [step for _ in range(6) for step in (nn.Conv2d(3, 3, 3), nn.ReLU())]
        deep = nn.Sequential(*steps, nn.Flatten(), nn.Linear(3 * 64, 2)).double()
    found = vizcnn.Deconvnet()(model(deep), image())
    assert [panel.title.split(":")[0] for panel in found.panels] == ["1", "5", "7", "11"]
    (line,) = found.describe().splitlines()
    assert line.count("(activation ") == 3
    assert line.endswith("; 1 more is drawn")


def test_a_network_without_relus_is_asked_for_its_class_and_refused() -> None:
    smooth = nn.Sequential(nn.Conv2d(3, 2, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(DegenerateResult, match="uses gelu, but this method's rule is defined for ReLU only"):
        vizcnn.Deconvnet()(model(smooth), image().float())
    dense = nn.Sequential(nn.Flatten(), nn.Linear(1200, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    for parameter in dense.parameters():
        nn.init.constant_(parameter, 0.1)
    assert vizcnn.Deconvnet().default_targets(model(dense)) is None
    assert len(vizcnn.Deconvnet()(model(dense), image()).panels) == 1
