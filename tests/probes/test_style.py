from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, ImageError, Interrupted, LayerNotFound, ParameterError
from vizcnn.results import Pictures
from vizcnn.testing import delicate_model, state_of


def model(network: nn.Module | None = None, channels: Any = 3) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(channels), size=16, channels=channels)


def photo(height: int = 24, width: int = 32, channels: int = 3) -> Any:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.2 * np.sin(rows / (4 + c) + columns / 7) for c in range(channels)]
    return np.stack(waves, 2).astype(np.float32)


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """A picture of another manner, of the very size that it is used in."""
    pixels = np.zeros((28, 32, 3), np.uint8)
    pixels[:, ::4], pixels[:, 1::4], pixels[::3, 2::4, 1] = (250, 40, 40), (30, 30, 220), 200
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"


def painted(of: vizcnn.Model, images: Any, like: Any = "sample:noise", *, seed: int = 0, **options: Any) -> Pictures:
    """A short and small run; without `like` towards noise."""
    probe = vizcnn.Style(**{"like": str(like), "size": 32, "steps": 8, **options})
    return probe(of, images, seed=seed, progress=False)


def image(found: Pictures) -> Any:
    return found.scenes[0].image


def maps(of: vizcnn.Model, layer: str, picture: Any) -> Any:
    """A layer's activations (C, positions) of the network for a picture (H, W, C), in double precision."""
    seen: list[Tensor] = []
    handle = of.layer(layer).register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with torch.no_grad():
        of(torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None])
    handle.remove()
    return seen[0][0].flatten(1).double().numpy()


def gram(features: Any) -> Any:
    channels, positions = features.shape
    return np.array([[(features[i] * features[j]).sum() / positions for j in range(channels)] for i in range(channels)])


def losses(
    of: vizcnn.Model, picture: Any, content: Any, manner: Any, layer: str, style: list[str]
) -> tuple[float, float]:
    """Gatys' two terms, each as a share of the size of its aim, the style's as a mean over layers."""
    aim = maps(of, layer, content)
    first = ((maps(of, layer, picture) - aim) ** 2).sum() / (aim**2).sum()
    shares = []
    for name in style:
        wanted = gram(maps(of, name, manner))
        shares.append(((gram(maps(of, name, picture)) - wanted) ** 2).sum() / (wanted**2).sum())
    return float(first), float(np.mean(shares))


def total_variation(picture: Any) -> float:
    """A mean over pixels of the length of the gradient, summed over colours."""
    down, right = picture[1:, :-1] - picture[:-1, :-1], picture[:-1, 1:] - picture[:-1, :-1]
    height, width = picture.shape[:2]
    return float(np.sqrt(down**2 + right**2 + 1e-8).sum() / (height * width))


def test_content_and_style_are_gatys_terms(stripes: Path) -> None:
    of, style = model(), ["0", "3"]
    found = painted(
        of, photo(), stripes, content_layer="3", style_layers=("0", "3"), content_weight=2.0, style_weight=7.0, tv=0.5
    )
    manner = np.asarray(Image.open(stripes)) / np.float32(255)
    values = found.scenes[0].values
    for which, picture in ((0, photo()), (1, image(found))):
        content_loss, style_loss = losses(of, picture, photo(), manner, "3", style)
        assert values["content"][which] == pytest.approx(content_loss, rel=1e-3, abs=1e-7)
        assert values["style"][which] == pytest.approx(style_loss, rel=1e-3)
        total = 2.0 * content_loss + 7.0 * style_loss + 0.5 * total_variation(picture)
        assert values["total"][which] == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_comes_nearer_to_the_style(optimiser: str, channels: int) -> None:
    found = painted(model(channels=channels), photo(channels=channels), optimiser=optimiser, steps=20)
    values = found.scenes[0].values
    assert values["content"][0] == 0
    assert values["style"][1] < 0.7 * values["style"][0]
    assert values["total"][1] < values["total"][0]
    assert image(found).shape == (24, 32, channels)
    assert image(found).min() >= 0
    assert image(found).max() <= 1


def test_a_picture_in_its_own_manner_stays_as_it_is(stripes: Path) -> None:
    found = painted(model(), stripes, stripes, tv=0.0)
    np.testing.assert_allclose(image(found), np.asarray(Image.open(stripes)) / 255, atol=1e-3)
    assert found.scenes[0].values["style"][1] == pytest.approx(0, abs=1e-6)


def test_without_a_weight_for_style_the_photograph_stays() -> None:
    np.testing.assert_allclose(image(painted(model(), photo(), style_weight=0.0, tv=0.0)), photo(), atol=1e-3)


def test_more_content_keeps_more_of_the_photograph() -> None:
    less, more = (
        painted(model(), photo(), content_weight=weight).scenes[0].values["content"][1] for weight in (0.0, 1000.0)
    )
    assert more < less / 2


def test_total_variation_makes_the_picture_smooth() -> None:
    rough, smooth = (total_variation(image(painted(model(), photo(), tv=weight, steps=15))) for weight in (0.0, 10.0))
    assert smooth < rough / 2


def test_the_layers_that_were_used_are_on_record() -> None:
    found = painted(model(), photo(), steps=1)
    assert found.provenance.details["style"] == ("1", "4", "5")  # the last of each resolution
    assert found.provenance.details["content"] == "4"
    assert "noise" in found.provenance.details["manner"]
    given = painted(model(), photo(), content_layer="1", style_layers="3, 0", steps=1)
    assert given.provenance.details["style"] == ("3", "0")
    assert given.provenance.details["content"] == "1"


@pytest.mark.parametrize(("size", "shape"), [(16, (12, 16)), (48, (36, 48))])
def test_the_longer_side_is_given(size: int, shape: tuple[int, int]) -> None:
    assert image(painted(model(), photo(), size=size, steps=1)).shape == (*shape, 3)


def test_every_photograph_is_painted_for_itself() -> None:
    both = painted(model(), [photo(), photo(32, 20)])
    assert [scene.image.shape for scene in both.scenes] == [(24, 32, 3), (32, 20, 3)]
    np.testing.assert_allclose(image(both), image(painted(model(), photo())), atol=1e-5)
    assert [(part, source.name) for part, source in both.scenes[0].sources] == [
        ("content", "image"),
        ("style", "noise"),
    ]
    titles = [ax.get_title() for ax in both.figure().axes]
    assert titles == ["content: image", "style: noise", "result of style"] * 2


def test_nothing_is_random() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, other = (image(painted(model(), photo(), seed=seed)) for seed in (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one, other)


def test_the_picture_is_never_worse_than_the_photograph() -> None:
    before, after = painted(model(), photo(), tv=1000.0).scenes[0].values["total"]
    assert after <= before


def test_networks_with_a_dense_head_paint_in_any_size() -> None:
    assert image(painted(vizcnn.load("lecture"), photo(channels=1), size=40)).shape == (30, 40, 1)


def test_frames_lead_from_the_photograph_to_the_picture() -> None:
    found = painted(model(), photo(), frames=4)
    frames = found.scenes[0].frames
    assert frames.shape == (4, 24, 32, 3)
    np.testing.assert_array_equal(frames[0], (photo() * 255).round())
    np.testing.assert_array_equal(frames[-1], (image(found) * 255).round())
    assert (frames[0] != frames[1]).any()
    for few in (0, 1):
        assert len(painted(model(), photo(), frames=few).scenes[0].frames) == few


def test_the_network_is_left_as_it_was() -> None:
    of = delicate_model()
    before = state_of(of)
    for _ in range(20):
        painted(of, photo(), steps=1, size=16)
    assert state_of(of) == before
    broken = delicate_model(12)
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="fails on purpose"):
        painted(broken, photo(), steps=50)
    assert state_of(broken) == before


class Interrupting(nn.Module):
    """Passes its input on, but Ctrl-C arrives in one of its runs."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return x


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_ctrl_c_gives_the_picture_as_far_as_it_got(optimiser: str, tmp_path: Path) -> None:
    of = model(nn.Sequential(Interrupting(18), small_cnn()))
    before = state_of(of)
    both = [photo(), photo()]
    with pytest.raises(Interrupted) as stopped:
        painted(of, both, optimiser=optimiser, steps=500, style_layers="1.3", content_layer="1.3", frames=3)
    assert state_of(of) == before
    found = stopped.value.result
    assert isinstance(found, Pictures)
    assert found.partial
    assert "(stopped early)" in found.describe()
    assert len(found.scenes) == len(found.provenance.images) == 1
    assert image(found).min() >= 0
    assert image(found).max() <= 1
    assert np.abs(image(found) - photo()).max() > 0.001
    np.testing.assert_array_equal(found.scenes[0].frames[-1], (image(found) * 255).round())
    assert found.save(tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_layers": "1,,3"}, "style_layers must be names with commas between"),
        ({"size": 8}, "size must be at least 16 px"),
        ({"style_weight": -1.0}, "style_weight must be at least 0"),
        ({"optimiser": "sgd"}, "optimiser must be one of 'lbfgs', 'adam'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        vizcnn.Style(**options)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(LayerNotFound, match="no layer named 'nowhere'"):
        painted(model(), photo(), style_layers="nowhere")
    with pytest.raises(ImageError, match="no sample named 'mosaik'. Did you mean 'mosaic'?"):
        painted(model(), photo(), "sample:mosaik")
    with pytest.raises(ParameterError, match="explains no target"):
        vizcnn.Style()(model(), photo(), target=1)


def test_a_layer_that_is_zero_everywhere_knows_no_style() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    nn.init.constant_(network[0].bias, -1.0)  # type: ignore[arg-type]
    with pytest.raises(DegenerateResult, match="layer '1' is zero everywhere"):
        painted(model(network), photo(), style_layers="1", content_layer="0")


def test_a_network_without_positions_knows_no_style() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(DegenerateResult, match="no layer of Sequential gives a map .* of more than one position"):
        painted(model(network), photo())
