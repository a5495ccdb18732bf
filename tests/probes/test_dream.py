from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import Interrupted, LayerNotFound, NotDifferentiable, ParameterError, ShapeError, TargetError
from vizcnn.results import Pictures
from vizcnn.testing import delicate_model, state_of


def model(network: nn.Module | None = None, channels: Any = 3, **more: Any) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(channels), size=16, channels=channels, **more)


def photo(height: int = 48, width: int = 60, channels: int = 3) -> Any:
    """Soft colours, well inside [0, 1]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.2 * np.sin(rows / (4 + c) + columns / 7) for c in range(channels)]
    return np.stack(waves, 2).astype(np.float32)


def dreamt(of: vizcnn.Model, images: Any, target: Any = None, *, seed: int = 0, **options: Any) -> Pictures:
    return vizcnn.Dream(**{"steps": 3, **options})(of, images, target, seed=seed, progress=False)


def image(found: Pictures) -> Any:
    return found.scenes[0].image


def energy_of(of: vizcnn.Model, layer: str, picture: Any) -> float:
    seen = []
    handle = of.layer(layer).register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with torch.no_grad():
        of(torch.from_numpy(picture).permute(2, 0, 1)[None])
    handle.remove()
    return float(seen[0].square().mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dream_raises_the_layers_energy_in_the_photographs_own_size(channels: int) -> None:
    of, start = model(channels=channels), photo(channels=channels)
    found = dreamt(of, start, "energy(3)", steps=10)
    assert image(found).shape == (48, 60, channels)
    assert image(found).min() >= 0
    assert image(found).max() <= 1
    before, after = found.scenes[0].values["energy(3)"]
    assert before == pytest.approx(energy_of(of, "3", start), rel=1e-4)
    assert after == pytest.approx(energy_of(of, "3", image(found)), rel=1e-4)
    assert after > 1.2 * before
    assert "60 x 48 px: energy(3)" in found.describe()


def test_the_default_is_the_energy_of_a_layer_in_the_middle() -> None:
    found = dreamt(model(), photo())
    assert found.provenance.targets == (("energy(4)",),)


def test_channels_and_classes_are_dreamt_of_too() -> None:
    of = model(labels=list("abcde"))
    for target in ("3:2", 1, "b", vizcnn.target("3:1") - vizcnn.target("3:2")):
        ((before, after),) = dreamt(of, photo(), target, steps=8).scenes[0].values.values()
        assert after > before
    ((before, after),) = dreamt(of, photo(), "3:2@4,4", steps=8, jitter=0.0).scenes[0].values.values()
    assert after > before + 0.1


def test_the_photograph_is_still_there() -> None:
    found = dreamt(model(), photo(), "energy(3)", steps=3)
    change = image(found) - photo()
    assert 0.001 < np.abs(change).mean() < 0.1
    assert np.corrcoef(image(found).ravel(), photo().ravel())[0, 1] > 0.9


def test_a_dream_of_nothing_to_raise_is_the_photograph() -> None:
    """Details are added to the photograph; that it passes through smaller sizes leaves no mark."""
    flat = nn.Sequential(nn.Conv2d(3, 2, 1))
    for parameter in flat.parameters():
        nn.init.zeros_(parameter)
    np.testing.assert_allclose(
        image(dreamt(model(flat), photo(100, 120), "0:0", octaves=4)), photo(100, 120), atol=1e-5
    )


def test_a_step_is_as_long_as_the_rate_says() -> None:
    found = dreamt(model(), photo(), "energy(3)", octaves=1, steps=1, rate=0.01)
    assert np.sqrt(((image(found) - photo()) ** 2).mean()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("size", "shape"), [(None, (48, 60)), (32, (26, 32)), (90, (72, 90))])
def test_the_longer_side_may_be_given(size: int | None, shape: tuple[int, int]) -> None:
    assert image(dreamt(model(), photo(), "3:0", size=size, steps=1)).shape == (*shape, 3)


def test_large_photographs_are_made_512_px() -> None:
    found = dreamt(model(), photo(300, 600), "0:0", octaves=1, steps=1)
    assert image(found).shape == (256, 512, 3)


def test_octaves_stop_before_they_are_too_small() -> None:
    """60 px make two octaves down to 32 px; more change nothing."""
    few, many = (dreamt(model(), photo(60, 60), "3:0", octaves=n, scale=1.4) for n in (2, 6))
    np.testing.assert_array_equal(image(few), image(many))
    one = dreamt(model(), photo(60, 60), "3:0", octaves=1)
    assert np.abs(image(one) - image(few)).max() > 0.005


def test_every_photograph_dreams_for_itself(photo_file: Path) -> None:
    both = dreamt(model(), [photo(), photo_file], "3:0")
    assert [scene.image.shape[:2] for scene in both.scenes] == [(48, 60), (60, 90)]
    np.testing.assert_allclose(both.scenes[1].image, image(dreamt(model(), photo_file, "3:0")), atol=1e-6)


def test_the_same_seed_gives_the_same_dream() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = (image(dreamt(model(), photo(), "3:0", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4


def test_noise_is_a_start_without_a_subject() -> None:
    found = dreamt(model(), "sample:noise", "energy(3)", size=48, steps=8)
    before, after = found.scenes[0].values["energy(3)"]
    assert max(image(found).shape) == 48
    assert after > before


def test_frames_show_the_way_and_end_at_the_picture() -> None:
    found = dreamt(model(), photo(), "energy(3)", frames=2)
    frames = found.scenes[0].frames
    assert frames.shape[1:] == (48, 60, 3)
    assert frames.dtype == np.uint8
    assert len(frames) >= 2 * 2
    np.testing.assert_array_equal(frames[-1], (image(found) * 255).round())
    assert all((a != b).any() for a, b in pairwise(frames))
    assert len(dreamt(model(), photo(), "energy(3)").scenes[0].frames) == 0


def test_the_network_is_left_as_it_was() -> None:
    of = delicate_model()
    before = state_of(of)
    for _ in range(20):
        dreamt(of, photo(), "energy(conv)", steps=1)
    assert state_of(of) == before
    broken = delicate_model(6)
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="fails on purpose"):
        dreamt(broken, photo(), "energy(conv)", steps=10)
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


@pytest.mark.parametrize("after", [14, 32])
def test_ctrl_c_gives_the_dream_as_far_as_it_got(after: int, tmp_path: Path) -> None:
    """In the first octave and in the last."""
    of = model(nn.Sequential(Interrupting(after), small_cnn()))
    before = state_of(of)
    with pytest.raises(Interrupted) as stopped:
        dreamt(of, [photo(), photo()], "1.3:0", steps=10, octaves=2)
    assert state_of(of) == before
    found = stopped.value.result
    assert isinstance(found, Pictures)
    assert found.partial
    assert "(stopped early)" in found.describe()
    assert len(found.scenes) == len(found.provenance.images) == 1
    assert image(found).shape == (48, 60, 3)
    assert image(found).min() >= 0
    assert image(found).max() <= 1
    assert np.abs(image(found) - photo()).max() > 0.001
    assert found.save(tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octaves": 0}, "octaves must be at least 1"),
        ({"scale": 1.0}, "scale must be at least 1.01"),
        ({"jitter": 0.6}, "jitter must be at most 0.5"),
        ({"size": 15}, "size must be at least 16 px"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        vizcnn.Dream(**options)


def test_targets_that_do_not_exist_are_named() -> None:
    with pytest.raises(LayerNotFound, match="no layer named 'nowhere'"):
        dreamt(model(), photo(), "energy(nowhere)")
    with pytest.raises(TargetError, match="channels 0 to 7, got 8"):
        dreamt(model(), photo(), "3:8")
    with pytest.raises(TargetError, match="a dream raises one target, got 2: 3:0, 3:1. Give one, or their sum"):
        dreamt(model(), photo(), "3:0-1")


def test_a_class_behind_dense_layers_is_dreamt_of_in_the_networks_own_size() -> None:
    lecture, digit = vizcnn.load("lecture"), photo(56, 56, 1)
    with pytest.raises(ShapeError, match=r"reaches 3 with pictures of its own size only, 28 x 28 px, got 40 x 40: "):
        dreamt(lecture, digit, 3)
    ((before, after),) = dreamt(lecture, digit, 3, size=28).scenes[0].values.values()
    assert after > before


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 2, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.conv(x).detach())
        return out


def test_a_network_that_detaches_is_refused() -> None:
    with pytest.raises(NotDifferentiable, match=r"energy\(end\) has no gradient"):
        dreamt(model(Detached()), photo(), "energy(end)")
