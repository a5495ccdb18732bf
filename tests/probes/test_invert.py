from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, Interrupted, LayerNotFound, ParameterError, VizcnnWarning
from vizcnn.results import Optimised
from vizcnn.testing import state_of

PURE: dict[str, Any] = {"tv": 0.0, "alpha": 0.0}


def model(network: nn.Module | None = None, channels: Any = 3, size: int = 8) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(channels), size=size, channels=channels)


def photo(count: int = 1, channels: int = 3, size: int = 8) -> Tensor:
    return picture((size, size), channels, count)


def inverted(of: vizcnn.Model, images: Any, *, seed: int = 0, **options: Any) -> Optimised:
    return vizcnn.Invert(**{"steps": 8, **options})(of, images, seed=seed, progress=False)


def named(layers: str) -> Any:
    """Layers as the command line gives them."""
    return {"layers": layers}


def pictures(found: Optimised, i: int = 0) -> Tensor:
    """Of photograph i, (K, C, H, W)."""
    values = torch.from_numpy(found.panels[i].values)
    return values.permute(0, 3, 1, 2) if values.dim() == 4 else values[:, None]


def one_layer(network: nn.Module) -> vizcnn.Model:
    return model(nn.Sequential(network))


def test_what_a_layer_passes_on_unchanged_comes_back() -> None:
    found = inverted(one_layer(nn.Identity()), photo(), layers="0", steps=20, **PURE)
    torch.testing.assert_close(pictures(found), photo(), atol=1e-3, rtol=0)
    assert found.reached[0] < 1e-3


def test_what_an_invertible_linear_layer_makes_comes_back() -> None:
    """Every 2 x 2 patch of all colours is mixed by a matrix of which nothing is lost."""
    mix = nn.Conv2d(3, 12, 2, 2)
    random = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mix.weight.copy_((2 * torch.linalg.qr(random)[0] + 0.3 * random).reshape(12, 3, 2, 2))
    found = inverted(one_layer(mix), photo(), layers="0", steps=100, **PURE)
    torch.testing.assert_close(pictures(found), photo(), atol=5e-3, rtol=0)
    assert found.reached[0] < 1e-3


def test_what_a_layer_does_not_look_at_does_not_come_back() -> None:
    red = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        red.weight.copy_(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    found = inverted(one_layer(red), photo(), layers="0", steps=20, **PURE)
    torch.testing.assert_close(pictures(found)[:, 0], photo()[:, 0], atol=1e-3, rtol=0)
    assert (pictures(found)[:, 1:] - 0.5).abs().max() < 0.2  # still the noise that it began with
    assert found.reached[0] < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_relative_error_is_that_of_a_plain_computation(channels: int) -> None:
    network, image = small_cnn(channels).eval(), photo(channels=channels)
    found = inverted(model(channels=channels), image, layers="0,3,7")
    for k, layer in enumerate((0, 3, 7)):
        with torch.no_grad():
            wanted, seen = (network[: layer + 1](x).double() for x in (image, pictures(found)[k : k + 1]))
        expected = float((seen - wanted).norm() / wanted.norm())
        assert found.reached[k] == pytest.approx(expected, rel=1e-4)
        assert f"error {expected:.2g}" in found.panels[0].titles[k]
    assert found.provenance.details["layers"] == "0,3,7"


def test_half_precision_comes_near_too() -> None:
    """Sums of squares of activations would overflow it."""
    loud = nn.Conv2d(3, 8, 3, padding=1)
    with torch.no_grad():
        loud.weight.mul_(300)
    found = inverted(one_layer(loud.half()), photo(), layers="0", steps=30, **PURE)
    assert found.reached[0] < 0.02


def test_more_steps_come_nearer() -> None:
    few, many = (inverted(model(), photo(), steps=steps, layers="3", **PURE).reached[0] for steps in (2, 30))
    assert many < few / 4


def test_total_variation_makes_the_picture_smooth() -> None:
    def roughness(tv: float) -> float:
        one = pictures(inverted(model(), photo(), layers="3", steps=30, tv=tv))
        return float(one.diff(dim=2).square().mean() + one.diff(dim=3).square().mean())

    assert roughness(3.0) < roughness(0.0) / 2


def test_alpha_keeps_pixels_near_the_networks_mean_colour() -> None:
    def extremes(alpha: float) -> float:
        of = vizcnn.Model(small_cnn(), size=8, mean=(0.3, 0.3, 0.3))
        return float((pictures(inverted(of, photo(), layers="3", steps=30, tv=0.0, alpha=alpha)) - 0.3).pow(6).mean())

    assert extremes(1.0) < extremes(0.0) / 2


def test_the_same_seed_gives_the_same_pictures() -> None:
    one, again, other = (inverted(model(), photo(), seed=seed).panels[0].values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def test_photographs_and_layers_are_inverted_each_for_itself() -> None:
    of, images = model(), photo(3)
    together = inverted(of, images, layers="0,7", batch=2)
    assert [panel.key for panel in together.panels] == ["pictures", "pictures-1", "pictures-2"]
    for i in range(3):
        alone = inverted(of, images[i : i + 1], layers="7")
        np.testing.assert_allclose(pictures(together, i)[1], pictures(alone)[0], atol=1e-4)
        assert together.reached[2 * i + 1] == pytest.approx(alone.reached[0], rel=1e-3)


def test_by_default_the_last_layer_of_each_resolution_and_of_all() -> None:
    assert inverted(model(size=16), photo(size=16), steps=1).provenance.details["layers"] == "1,4,5,7"
    assert vizcnn.Invert(**named(" a , b")).layers == ("a", "b")


def test_frames_lead_from_noise_to_the_pictures() -> None:
    found = inverted(model(), photo(), layers="0,3", frames=3)
    assert found.frames.shape == (3, 2, 8, 8, 3)
    np.testing.assert_array_equal(found.frames[-1], (found.panels[0].values * 255).round())


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


def test_ctrl_c_gives_the_pictures_as_far_as_they_got() -> None:
    of = model(nn.Sequential(Interrupting(40), small_cnn()))
    before = state_of(of)
    with pytest.raises(Interrupted) as stopped:
        inverted(of, photo(3), layers="1.3,1.7", steps=500, batch=2)
    assert state_of(of) == before
    found = stopped.value.result
    assert isinstance(found, Optimised)
    assert found.partial
    assert len(found.reached) == len(found.provenance.images) == 2  # the first layer's first batch
    assert [len(panel.values) for panel in found.panels] == [1, 1]
    assert "(stopped early)" in found.describe()


@pytest.mark.parametrize("dark", [0, 1, 2])
def test_a_photograph_for_which_the_layer_is_zero_is_left_out(dark: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(network[0].weight, 1 / 3)  # type: ignore[arg-type]
    nn.init.constant_(network[0].bias, -0.3)  # type: ignore[arg-type]
    inputs = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    inputs[dark] /= 4
    of = vizcnn.Model(network, size=16)
    with pytest.warns(VizcnnWarning, match="1 image was left out"):
        found = inverted(of, inputs, layers="1", steps=3)
    ((_, reason),) = found.refused
    good = [i for i in range(3) if i != dark]
    expected = inverted(of, inputs[good], layers="1", steps=3)
    assert [row.scene.photo.name for row in found.rows if row.scene] == ["tensor"] * 2
    np.testing.assert_allclose(found.reached, expected.reached, rtol=1e-4)
    for images, strict in ((inputs, True), (inputs[dark], False)):
        with pytest.raises(DegenerateResult) as caught:
            vizcnn.Invert(**named("1"), steps=3)(of, images, progress=False, strict=strict)
        assert str(caught.value).endswith(reason)


def test_what_cannot_be_inverted_is_named() -> None:
    with pytest.raises(LayerNotFound, match=r"no layer named 'layr1' in tiny. Did you mean 'layer1'"):
        vizcnn.Invert(**named("layr1"))(vizcnn.load("tiny"), "sample:grace_hopper", progress=False)
    with pytest.raises(ParameterError, match="layers must be names with commas between"):
        vizcnn.Invert(**named("a,,b"))
    silent = nn.Conv2d(3, 2, 3)
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)  # type: ignore[arg-type]
    with pytest.raises(DegenerateResult, match="layer '0' is zero everywhere"):
        inverted(one_layer(silent), photo(), layers="0")
