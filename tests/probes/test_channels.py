"""Images of two, four, five channels: every probe gives what plain autograd or brute force gives, and draws what
`display` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import enliven, picture
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ImageError, ParameterError
from vizcnn.models.contract import InputContract
from vizcnn.results import Result

SIZE = (16, 16)
COUNTS = [2, 4, 5]


def make_model(channels: int, **contract: Any) -> vizcnn.Model:
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        network = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 8 * 8, 4),
        )
    enliven(network, picture(SIZE, channels))
    contract = {
        "mean": [0.3 + 0.1 * i for i in range(channels)],
        "std": [0.2 + 0.1 * i for i in range(channels)],
    } | contract
    return vizcnn.Model(network, size=SIZE, channels=channels, labels=list("abcd"), **contract)


def normalise(model: vizcnn.Model, images: Tensor) -> Tensor:
    """Channel by channel, as the contract says."""
    pairs = zip(model.input.mean, model.input.std, strict=True)
    return torch.stack([(images[:, i] - mean) / std for i, (mean, std) in enumerate(pairs)], 1)


@torch.no_grad()
def score(model: vizcnn.Model, images: Tensor, target: int) -> Tensor:
    return model.network(normalise(model, images))[:, target]  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("fill", ["mean", "model", "grey", "blur"])
def test_occlusion_is_what_covering_each_window_costs(channels: int, fill: str) -> None:
    model, images = make_model(channels), picture(SIZE, channels)
    found = vizcnn.Occlusion(window=4, stride=4, fill=fill)(model, images, target=1, progress=False)
    right = np.zeros(SIZE)
    if fill == "blur":  # a Gaussian with half a window as its sigma
        away = torch.arange(-6, 7).float()
        kernel = torch.exp(-0.5 * (away / 2) ** 2)
        kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
        padded = nn.functional.pad(images, (6, 6, 6, 6), mode="replicate")
        cover = torch.cat([nn.functional.conv2d(padded[:, i : i + 1], kernel[None, None]) for i in range(channels)], 1)
    else:
        colours = {"mean": images.mean((2, 3))[0], "model": torch.tensor(model.input.mean)}
        cover = colours.get(fill, torch.full((channels,), 128 / 255))[None, :, None, None].expand_as(images)
    for top in range(0, 16, 4):
        for left in range(0, 16, 4):
            covered = images.clone()
            covered[:, :, top : top + 4, left : left + 4] = cover[:, :, top : top + 4, left : left + 4]
            drop = float(score(model, images, 1) - score(model, covered, 1))
            right[top : top + 4, left : left + 4] = drop
    np.testing.assert_allclose(found.values[0, 0], right, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize("channels", COUNTS)
def test_a_gradient_is_autograds(channels: int) -> None:
    model, images = make_model(channels), picture(SIZE, channels)
    leaf = images.clone().requires_grad_()
    model.network(normalise(model, leaf))[0, 2].backward()
    assert leaf.grad is not None
    found = vizcnn.Saliency(sign="abs")(model, images, target=2, progress=False)
    np.testing.assert_allclose(found.values[0, 0], leaf.grad[0].abs().amax(0).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", COUNTS)
def test_integrated_gradients_add_up_to_the_difference_of_scores(channels: int) -> None:
    model, images = make_model(channels), picture(SIZE, channels)
    probe = vizcnn.Saliency(method="integrated-gradients", sign="signed", baseline="black", steps=200)
    found = probe(model, images, target=0, progress=False)
    difference = float(score(model, images, 0) - score(model, torch.zeros_like(images), 0))
    assert float(found.values[0, 0].sum()) == pytest.approx(difference, rel=0.03)


@pytest.mark.parametrize("channels", COUNTS)
def test_a_colour_that_such_images_do_not_have_is_refused(channels: int) -> None:
    with pytest.raises(ParameterError, match=rf"'red' is a colour.* takes {channels} channels. Choose a shade of grey"):
        vizcnn.Occlusion(window=4, fill="red")(make_model(channels), picture(SIZE, channels), progress=False)


def read_network_channel(channels: int, chosen: int, **contract: Any) -> vizcnn.Model:
    """A network whose only output is the mean of one of its channels."""
    conv = nn.Conv2d(channels, 1, 1, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, chosen] = 1
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return vizcnn.Model(network, size=SIZE, channels=channels, **contract)


@pytest.mark.parametrize("recipe", ["robust", "lecture", "maco"])
def test_an_ascent_raises_the_channel_that_the_target_reads(recipe: str) -> None:
    """Only it, since other than three channels are not mixed as colours."""
    probe = vizcnn.Maximize(preset=recipe, steps=40)
    result = probe(read_network_channel(5, 4, display=(4, 0, 1)), target=["0:0"], progress=False)
    pictures = result.arrays()["pictures"]
    assert pictures.shape == (1, *SIZE, 5)
    means = pictures[0].mean((0, 1))
    if recipe != "maco":  # which keeps the contrast
        assert means[4] > 0.6
        assert np.abs(means[:4] - 0.5).max() < 0.05
    drawn = result.panels[0].shown
    np.testing.assert_array_equal(drawn, pictures[..., [4, 0, 1]])
    assert "drawn=channels 4,0,1 of 5 as red,green,blue" in result.small_print


def test_dream_and_invert_keep_all_channels_and_draw_some(tmp_path: Path) -> None:
    model, image = make_model(5, display=3), picture(SIZE, 5)[0].permute(1, 2, 0).numpy()
    dreamt = vizcnn.Dream(octaves=1, steps=2, size=16, frames=2)(model, image, target="2:0", progress=False)
    assert dreamt.scenes[0].image.shape == (*SIZE, 5)
    before, after = next(iter(dreamt.scenes[0].values.values()))
    assert after > before
    with Image.open(dreamt.save(tmp_path / "a.png")) as saved:
        shown = np.asarray(saved)
    np.testing.assert_array_equal(shown, (dreamt.scenes[0].image[..., 3].clip(0, 1) * 255).round().astype(np.uint8))
    with Image.open(dreamt.save(tmp_path / "a.gif")) as film:
        assert film.n_frames == 2  # type: ignore[attr-defined]
    inverted = vizcnn.Invert(layers=("0",), steps=60, tv=0, alpha=0)(model, image, progress=False)
    assert inverted.arrays()["pictures"].shape == (1, *SIZE, 5)
    assert inverted.panels[0].shown.shape == (1, *SIZE)
    error = np.abs(inverted.arrays()["pictures"][0] - image).mean()
    assert error < np.abs(image - image.mean()).mean()  # nearer than a picture of one shade


def test_style_takes_a_picture_of_the_same_channels(tmp_path: Path) -> None:
    model = make_model(5)
    one, other = (picture(SIZE, 5, seed=seed)[0].permute(1, 2, 0).numpy() for seed in (0, 1))
    np.save(tmp_path / "other.npy", other)
    probe = vizcnn.Style(like=str(tmp_path / "other.npy"), size=16, steps=3)
    result = probe(model, one, progress=False)
    before, after = result.scenes[0].values["total"]
    assert after < before
    assert [photo.channels for _, photo in result.scenes[0].sources] == [3, 3]
    with pytest.raises(ImageError, match="mosaic, whose style is taken, has 3 channels, and Sequential takes 5"):
        vizcnn.Style(size=16)(model, one, progress=False)


PROBES: dict[str, tuple[Any, dict[str, Any]]] = {
    "occlusion": (vizcnn.Occlusion(window=8), {"target": 0}),
    "rise": (vizcnn.Rise(masks=8), {"target": 0}),
    "saliency": (vizcnn.Saliency(), {"target": 0}),
    "cam": (vizcnn.Cam(method="eigen-cam"), {"target": 0}),
    "deconvnet": (vizcnn.Deconvnet(), {"target": "1:0"}),
    "feature-maps": (vizcnn.FeatureMaps(), {}),
    "invert": (vizcnn.Invert(layers=("0",), steps=2), {}),
    "arithmetic": (vizcnn.Arithmetic(), {"target": "0:0"}),
}


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("channels", [2, 5])
def test_a_result_keeps_what_is_drawn_and_says_it(name: str, channels: int, tmp_path: Path) -> None:
    probe, asked = PROBES[name]
    model = make_model(channels, display=(3, 2, 1) if channels == 5 else 1)
    array = (picture((20, 16), channels)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    result = probe(model, array, progress=False, **asked)
    digest = vizcnn.open_photo(array, channels=channels).sha256()
    assert result.provenance.images == (("image", digest),)  # of all channels
    chosen = {5: "channels 3,2,1 of 5 as red,green,blue", 2: "channel 1 of 2 as grey"}[channels]
    assert f"drawn={chosen}" in result.small_print
    again = vizcnn.load_result(result.save(tmp_path / "a.npz"))
    for one in (result, again):
        photo = find_photo(one)
        np.testing.assert_array_equal(photo.held, array[:, :, [3, 2, 1] if channels == 5 else [1]])
        assert photo.sha256() == digest
        one.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="a copy to draw only"):
        probe(model, find_photo(result), progress=False, **asked)


def find_photo(result: Result) -> Any:
    if isinstance(result, vizcnn.UnitSums):
        return result.units[0].scene.photo
    return result.photos[0] if hasattr(result, "photos") else result.rows[0].scene.photo  # type: ignore[attr-defined]


def test_deconvnet_keeps_the_pattern_of_all_channels() -> None:
    model, images = make_model(5, display=(3, 2, 1)), picture(SIZE, 5)
    result = vizcnn.Deconvnet()(model, images, target="0:0@8,8", progress=False)
    weights = model.network[0].weight.detach()  # type: ignore[index]
    value = float(model.network[0](normalise(model, images)).detach()[0, 0, 8, 8])  # type: ignore[index]
    panel = result.panels[0]
    assert panel.values.shape == (1, 3, 3, 5)
    right = weights[0].permute(1, 2, 0).numpy() * value  # (3, 3, 5), in units of the normalised input
    np.testing.assert_allclose(panel.values[0], right, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(panel.shown, panel.values[..., [3, 2, 1]])


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_scan_reads_arrays_as_the_contract_says(tmp_path: Path, loaders: int) -> None:
    """White and channels reach the processes that read, and the pictures of what was found."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    arrays = [(picture(SIZE, 5, seed=i)[0].permute(1, 2, 0).numpy() * 4095).astype(np.uint16) for i in range(4)]
    for i, array in enumerate(arrays):
        np.save(folder / f"{i}.npy", array)
    model = make_model(5, white=4095, display=(4, 3, 2))
    index = vizcnn.scan(model, folder, tmp_path / "index", layers=["0"], top=4, loaders=loaders, progress=False)
    images = torch.stack([torch.from_numpy(a.astype(np.float32) / np.float32(4095)).permute(2, 0, 1) for a in arrays])
    with torch.no_grad():
        maps = model.network[0](normalise(model, images))  # type: ignore[index]
    best = maps.amax((2, 3)).sort(0, descending=True)
    result = vizcnn.TopImages(count=4).answer(index, ["0:0", "0:5"])
    for row, channel in zip(result.rows, (0, 5), strict=True):
        assert [one.number for one in row.exemplars] == best.indices[:, channel].tolist()
        np.testing.assert_allclose([one.value for one in row.exemplars], best.values[:, channel], rtol=1e-4)
        for one in row.exemplars:
            right = arrays[one.number][..., [4, 3, 2]] / 4095
            np.testing.assert_allclose(one.pixels, right, atol=1 / 255)
    assert "drawn=channels 4,3,2 of 5" in result.small_print
    assert index.contract == model.input
    assert vizcnn.scanning.Index.open(tmp_path / "index").contract == model.input


def test_kernels_and_pictures_beside_photographs_are_of_the_drawn_channels() -> None:
    model = make_model(5, display=(3, 2, 1))
    arrays = [picture(SIZE, 5, seed=i)[0].permute(1, 2, 0).numpy() for i in range(3)]
    result = vizcnn.TopImages(beside=("filter",))(model, arrays, target=["0:2"], progress=False)
    kernel = model.network[0].weight.detach()[2].permute(1, 2, 0).numpy()[..., [3, 2, 1]]  # type: ignore[index]
    ((_, drawn),) = result.rows[0].beside
    np.testing.assert_allclose(drawn, 0.5 + kernel / (2 * np.abs(kernel).max()), atol=1e-6)


def test_features_of_arrays_are_embedded() -> None:
    model = make_model(4)
    arrays = [picture(SIZE, 4, seed=i)[0].permute(1, 2, 0).numpy() for i in range(5)]
    result = vizcnn.Embed(method="pca", features=True)(model, arrays, progress=False)
    images = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
    with torch.no_grad():
        right = model.network[:5](normalise(model, images))  # type: ignore[index]
    assert result.features is not None
    np.testing.assert_allclose(result.features, right.numpy(), rtol=1e-4, atol=1e-5)
    assert {each.pixels.shape[2] for each in result.thumbnails} == {3}


def test_colours_in_another_order_are_drawn_in_it() -> None:
    """A network of three channels may have learned them as blue, green and red."""
    model = vizcnn.Model(make_model(3).network, size=SIZE, display=(2, 1, 0))
    array = (picture(SIZE)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    result = vizcnn.Saliency()(model, array, target=0, progress=False)
    np.testing.assert_array_equal(result.photos[0].held, array[:, :, ::-1])
    grey = vizcnn.Saliency()(model, array[:, :, 0], target=0, progress=False)
    assert grey.photos[0].channels == 1


def test_photographs_of_grey_and_colour_networks_are_drawn_as_they_are() -> None:
    contract = InputContract(size=SIZE, channels=1, mean=(0.5,), std=(0.5,), display=(0,))
    assert contract.display is None
    assert contract.drawn == ""
