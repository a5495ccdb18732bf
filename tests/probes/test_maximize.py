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
from vizcnn.ascent import RECIPES
from vizcnn.errors import (
    Interrupted,
    LayerNotFound,
    NetworkError,
    NotDifferentiable,
    ParameterError,
    ShapeError,
    TargetError,
)
from vizcnn.results import Optimised
from vizcnn.testing import delicate_model, state_of


def model(network: nn.Module | None = None, channels: Any = 3, size: int = 16, **more: Any) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(channels), size=size, channels=channels, **more)


def made(of: vizcnn.Model, target: Any = None, *, seed: int = 0, **options: Any) -> Optimised:
    return vizcnn.Maximize(**{"steps": 4, **options})(of, target=target, seed=seed, progress=False)


def pictures(found: Optimised) -> Any:
    return found.arrays()["pictures"]


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_first_ten_classes_are_drawn_where_nothing_is_asked() -> None:
    few, many = made(model(labels=list("abcde"))), made(model(small_cnn(classes=12)))
    assert [title.split("\n")[0] for title in few.panels[0].titles] == list("abcde")
    assert many.panels[0].channels == tuple(range(10))
    assert few.panels[0].title == "logit, raised"


def test_a_span_of_channels_is_a_panel_with_the_values_reached() -> None:
    found = made(model(), "3:2-5")
    (panel,) = found.panels
    assert panel.channels == (2, 3, 4, 5)
    assert pictures(found).shape == (4, 16, 16, 3)
    assert panel.titles == tuple(f"3:{c}\n{v:.3g}" for c, v in zip(range(2, 6), found.reached, strict=True))
    assert all(f"3:{c} {v:.3g}" in found.describe() for c, v in zip(range(2, 6), found.reached, strict=True))
    assert found.provenance.targets == (("3:2", "3:3", "3:4", "3:5"),)


def test_the_values_reached_are_those_of_the_pictures() -> None:
    of = model(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    found = made(of, "0:0-7")
    with torch.no_grad():
        shown = torch.from_numpy(pictures(found)).permute(0, 3, 1, 2)
        maps = next(of.network.children())(of.normalised(shown))  # (8, 8, H, W)
    np.testing.assert_allclose(found.reached, maps.mean((2, 3)).diagonal(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_recipe_raises_its_targets_for_grey_and_colour(name: str, channels: int) -> None:
    of = model(channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels)
    first, last = (made(of, "3:0-3", preset=name, steps=steps) for steps in (1, 30))
    assert (last.reached > first.reached).all()
    for found in (first, last):
        assert pictures(found).shape == ((4, 16, 16, 3) if channels == 3 else (4, 16, 16))
        assert pictures(found).min() >= 0
        assert pictures(found).max() <= 1
        assert np.ptp(pictures(found)[0]) > 0.05


def test_lowering_and_both_directions() -> None:
    raised, lowered, both = (made(model(), "3:0-1", sign=s, steps=20) for s in ("positive", "negative", "both"))
    assert (lowered.reached < raised.reached).all()
    np.testing.assert_allclose(both.reached, [*raised.reached, *lowered.reached], rtol=1e-4, atol=1e-5)
    assert [panel.title for panel in both.panels] == ["activation of 3, raised", "activation of 3, lowered"]
    assert f"3:1 {both.reached[1]:.3g}, 3:0 lowered to {both.reached[2]:.3g}" in both.describe()


def test_copies_are_numbered_and_differ() -> None:
    found = made(model(), "3:1", copies=3)
    assert [title.split("\n")[0] for title in found.panels[0].titles] == ["3:1", "3:1 #2", "3:1 #3"]
    a, b, c = pictures(found)
    assert min(np.abs(a - b).max(), np.abs(b - c).max(), np.abs(a - c).max()) > 0.01


@pytest.mark.parametrize("size", [11, 24])
def test_pictures_may_have_another_size_than_the_network(size: int) -> None:
    found = made(model(), "3:0", size=size)
    assert pictures(found).shape == (1, size, size, 3)
    assert found.provenance.details["size"] == (size, size)


def test_the_bundled_networks_need_nothing_but_a_name() -> None:
    lecture = vizcnn.load("lecture")
    found = made(lecture, steps=60, preset="lecture")
    answers = lecture(torch.from_numpy(pictures(found))[:, None]).argmax(1)
    assert answers.tolist() == list(range(10))


def test_the_lectures_l1_darkens_the_digits() -> None:
    lecture = vizcnn.load("lecture")
    without, with_l1 = (made(lecture, 3, steps=40, preset="lecture", l1=weight) for weight in (0.0, 0.1))
    assert pictures(with_l1).mean() < pictures(without).mean() / 2
    assert with_l1.reached[0] > 0


def test_options_replace_the_recipes_own() -> None:
    assert vizcnn.Maximize(preset="mahendran").choose_recipe(model()) == RECIPES["mahendran"]
    used = vizcnn.Maximize(preset="mahendran", steps=7, rate=0.3, l1=0.5, l2=0.0, tv=0.2).choose_recipe(model())
    assert (used.steps, used.rate) == (7, 0.3)
    assert (used.penalty.l1, used.penalty.l2, used.penalty.tv) == (0.5, 0.0, 0.2)
    assert used.penalty.alpha == RECIPES["mahendran"].penalty.alpha


def test_the_record_says_which_recipe_and_whose_paper() -> None:
    found = made(model(), "3:0", preset="yosinski-2")
    assert found.provenance.details["recipe"] == "yosinski-2"
    assert found.provenance.details["steps"] == 4
    assert "Yosinski" in found.provenance.paper
    assert "Olah" in made(model(), "3:0", preset="lucid").provenance.paper


def test_maco_takes_the_spectrum_of_the_networks_own_data_or_of_a_folder(tmp_path: Path) -> None:
    assert made(vizcnn.load("lecture"), "conv1:0", preset="maco").provenance.details["spectrum"] == "mnist"
    assert made(vizcnn.load("eleven"), "conv1:0", preset="maco").provenance.details["spectrum"] == "tiny"
    assert made(model(), "3:0", preset="maco").provenance.details["spectrum"] == "natural"
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = made(model(), "3:0", preset="maco", like=str(tmp_path))
    assert found.provenance.details["spectrum"] == str(tmp_path)
    assert not np.allclose(pictures(found), pictures(made(model(), "3:0", preset="maco")), atol=0.01)


# --- the same picture -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = made(model(), "3:1", seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = made(model(), "3:1", seed=7), made(model(), "3:1", seed=8)
    np.testing.assert_array_equal(pictures(one), pictures(again))
    assert np.abs(pictures(one) - pictures(other)).max() > 0.01


@pytest.mark.parametrize("preset", ["lucid", "maco", "yosinski-4"])
def test_a_picture_is_the_same_alone_and_in_company(preset: str) -> None:
    of = model(small_cnn().double())
    together = made(of, ["3:0-7"], preset=preset)
    for batch in (1, 3):
        split = made(of, ["3:0-7"], preset=preset, batch=batch)
        np.testing.assert_allclose(pictures(split), pictures(together), atol=1e-4)
    alone = made(of, "3:6", preset=preset)
    np.testing.assert_allclose(pictures(alone)[0], pictures(together)[6], atol=1e-4)


def half_dead() -> nn.Module:
    """Channel 0 is dead for good, channel 1 opens late, channel 2 is alive."""
    conv = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv.weight.uniform_(-1, 1)
        conv.weight[0] = 0
        conv.bias.copy_(torch.tensor([-1.0, -3.0, 0.5]))  # type: ignore[union-attr]
    return nn.Sequential(conv, nn.ReLU())


def test_dead_company_changes_no_picture() -> None:
    of = model(half_dead().double())
    together = made(of, "1:0-2", steps=12)
    for i in range(3):
        np.testing.assert_allclose(pictures(made(of, f"1:{i}", steps=12))[0], pictures(together)[i], atol=1e-4)


def test_bfloat16_comes_near_or_is_not_used() -> None:
    of = model()
    full, half = made(of, "3:0-3", steps=20), made(of, "3:0-3", steps=20, precision="bfloat16")
    assert half.provenance.details["precision"] in ("bfloat16", "float32")
    np.testing.assert_allclose(half.reached, full.reached, rtol=0.25)
    assert full.provenance.details["precision"] == "float32"


class Cancelling(nn.Module):
    """A small difference of large numbers, which bfloat16 cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.conv.weight, 1.0)
        nn.init.constant_(self.conv.bias, 4096.0)  # type: ignore[arg-type]
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.conv(x) - 4096)
        return out


def test_bfloat16_is_given_up_where_it_disagrees() -> None:
    found = made(model(Cancelling()), "end:0", precision="bfloat16", preset="lecture", steps=40)
    assert found.provenance.details["precision"] == "float32"
    assert "bfloat16 gave values more than 5% off, so float32 was used after all" in found.describe()
    np.testing.assert_array_equal(
        pictures(found), pictures(made(model(Cancelling()), "end:0", preset="lecture", steps=40))
    )


# --- what cannot be reached -------------------------------------------------------------------------------------------


def test_a_dead_unit_is_named_and_a_shut_one_is_opened() -> None:
    found = made(model(half_dead()), "1:0-2", preset="lecture", steps=60)
    assert "1:0 never responded to any change, so these pictures show nothing" in found.describe()
    assert found.reached[0] == 0
    assert found.reached[1] > 0
    assert "responded" not in made(model(half_dead()), "1:1-2", preset="lecture", steps=60).describe()


def test_a_unit_that_stays_shut_is_named_too() -> None:
    network = half_dead()
    with torch.no_grad():
        network[0].bias[1] = -100  # type: ignore[index]
    assert "1:1 never responded" in made(model(network), "1:1", preset="lecture", steps=20).describe()


def test_numbers_and_frames_are_in_the_order_of_the_tiles() -> None:
    found = made(model(), ["0:1", "3:1", "0:2"], frames=2)
    shown = [title for panel in found.panels for title in panel.titles]
    assert [title.split("\n")[0] for title in shown] == ["0:1", "0:2", "3:1"]
    assert [float(title.split("\n")[1]) for title in shown] == [float(f"{value:.3g}") for value in found.reached]
    tiles = np.concatenate([panel.values for panel in found.panels])
    np.testing.assert_array_equal(found.frames[-1], (tiles * 255).round())


def test_a_missing_channel_is_refused_before_anything_is_optimised() -> None:
    of = model(nn.Sequential(counting := Counting(), small_cnn()))
    with pytest.raises(vizcnn.VizcnnError, match="layer '1.0' has channels 0 to 7, got 8"):
        made(of, "1.0:0-8", batch=4)
    assert counting.runs <= 3


class Counting(nn.Module):
    runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return x


def test_a_size_that_a_dense_layer_cannot_take_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"reaches 3 with pictures of its own size only, 28 x 28 px, got 40 x 40: "):
        made(vizcnn.load("lecture"), 3, size=40)


def test_a_neuron_of_larger_pictures_only() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    found = made(vizcnn.Model(network, size=16), "1:2@20,20", size=32)
    assert pictures(found).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("size", [20, 56])
def test_layers_before_a_dense_one_may_have_pictures_of_any_size(size: int) -> None:
    found = made(vizcnn.load("lecture"), "conv2:0-1", size=size)
    assert pictures(found).shape == (2, size, size)


def test_a_callers_inference_mode_does_not_matter() -> None:
    usual = made(of := model(), "0:1")
    with torch.inference_mode():
        np.testing.assert_array_equal(pictures(made(of, "0:1")), pictures(usual))


# --- no trace ---------------------------------------------------------------------------------------------------------


def test_two_hundred_renders_leave_the_network_as_it_was() -> None:
    """A network of one layer, so that two hundred calls take a moment."""
    norm = nn.BatchNorm2d(3)  # in training mode, in which every run would change its statistics
    norm.bias.requires_grad_(False)
    norm.weight.grad = torch.ones_like(norm.weight)
    of = model(nn.Sequential(norm), size=8)
    before = state_of(of)
    probe = vizcnn.Maximize(steps=1, preset="lecture")
    for call in range(200):
        probe(of, target=f"0:{call % 3}", progress=False)
    assert state_of(of) == before


@pytest.mark.parametrize("last", [2, 4, 7])
def test_a_network_that_raises_on_the_way_is_left_as_it_was(last: int) -> None:
    of = delicate_model(last)
    before = state_of(of)
    with pytest.raises(NetworkError, match="Maximize on delicate: .* fails on purpose"):
        made(of, "conv:1", steps=10)
    assert state_of(of) == before


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("preset", RECIPES)
def test_ctrl_c_gives_the_pictures_as_far_as_they_got(preset: str, tmp_path: Path) -> None:
    of = model(nn.Sequential(Interrupting(8), small_cnn()))
    before = state_of(of)
    with pytest.raises(Interrupted) as stopped:
        made(of, "1.3:0-2", steps=1000, preset=preset, frames=8)
    assert state_of(of) == before
    found = stopped.value.result
    assert isinstance(found, Optimised)
    assert found.partial
    assert found.summary()["partial"] is True
    assert "stopped early: 3 of 3 pictures" in found.describe()
    assert pictures(found).shape == (3, 16, 16, 3)
    assert pictures(found).min() >= 0
    assert pictures(found).max() <= 1
    np.testing.assert_array_equal(found.frames[-1], (pictures(found) * 255).round())
    assert found.save(tmp_path / "a.png").stat().st_size > 1000


def test_ctrl_c_in_a_later_batch_keeps_the_earlier_ones() -> None:
    whole = made(model(nn.Sequential(nn.Identity(), small_cnn())), "1.3:0-3", steps=5, batch=2)
    with pytest.raises(Interrupted) as stopped:
        made(model(nn.Sequential(Interrupting(16), small_cnn())), "1.3:0-3", steps=5, batch=2)
    found = stopped.value.result
    assert isinstance(found, Optimised)
    assert len(found.reached) == 4
    np.testing.assert_array_equal(pictures(found)[:2], pictures(whole)[:2])
    assert not np.array_equal(pictures(found)[2:], pictures(whole)[2:])


def test_ctrl_c_while_the_values_are_computed_keeps_the_earlier_batches() -> None:
    whole = made(model(nn.Sequential(nn.Identity(), small_cnn())), "1.3:0-3", steps=5, batch=2)
    with pytest.raises(Interrupted) as stopped:
        made(model(nn.Sequential(Interrupting(19), small_cnn())), "1.3:0-3", steps=5, batch=2)
    found = stopped.value.result
    assert isinstance(found, Optimised)
    assert "stopped early: 2 of 4 pictures" in found.describe()
    np.testing.assert_array_equal(pictures(found), pictures(whole)[:2])


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "lucit"}, "preset must be one of lecture, .*Did you mean 'lucid'"),
        ({"like": "tiny"}, "like is for the recipe maco, got preset robust"),
        ({"diversity": 0.5}, "diversity makes copies of a target differ, so it needs copies of 2 or more"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": -1.0}, "rate must be at least"),
        ({"size": 0}, "size must be at least 1 px"),
        ({"precision": "float16"}, "precision must be one of 'float32', 'bfloat16'"),
        ({"sign": "up"}, "sign must be one of 'positive', 'negative', 'both'"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        vizcnn.Maximize(**options)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("3:5-2", TargetError, "goes from the lower to the higher, got '3:5-2'"),
        ("3:6-9", TargetError, "layer '3' has channels 0 to 7, got 8"),
        ("conv9:0", LayerNotFound, "no layer named 'conv9'"),
        (7, TargetError, "channels 0 to 4, got 7"),
        ("energy(nowhere)", LayerNotFound, "no layer named 'nowhere'"),
        ("daisies", TargetError, "no class or layer target named 'daisies' .* Did you mean 'daisy'"),
    ],
)
def test_targets_that_do_not_exist_are_named(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(model(labels=["daisy", "rose", "oak", "elm", "fir"]), target)


def test_an_unknown_spectrum_is_refused() -> None:
    with pytest.raises(ParameterError, match="one of natural, mnist, tiny, got 'nowhere'"):
        made(model(), "3:0", preset="maco", like="nowhere")


def test_an_output_that_holds_no_classes_needs_a_target() -> None:
    of = model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2)))
    with pytest.raises(
        TargetError, match=r"\(1, 2, 196\) for one image, not \(N, C\) or .* Or name a unit, such as LAYER:CHANNEL"
    ):
        made(of)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).detach()
        return out


def test_a_network_that_detaches_is_refused() -> None:
    with pytest.raises(NotDifferentiable, match="0 has no gradient with respect to the picture"):
        made(model(Detached()), 0)


def test_images_are_refused() -> None:
    with pytest.raises(ParameterError, match="takes no images"):
        vizcnn.Maximize()(model(), torch.rand(1, 3, 16, 16))


# --- beside real images -----------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02}.png")
    return vizcnn.scan(model(), tmp_path / "photos", tmp_path / "index", layers=["3"], progress=False, loaders=0).folder


def test_crops_of_the_best_real_images_stand_beside_each_picture(index: Path, tmp_path: Path) -> None:
    alone, found = made(model(), "3:1-2"), made(model(), "3:1-2", crops=str(index))
    np.testing.assert_array_equal(pictures(alone), pictures(found))
    beside = found.panels[1]
    assert beside.values.shape == (10, 16, 16, 3)
    assert beside.channels == (1,) * 5 + (2,) * 5
    best = vizcnn.TopImages(count=5).answer(vizcnn.Index.open(index), ["3:1", "3:2"])
    assert [t.strip() for t in beside.titles] == [f"{v:.3g}" for v in best.arrays()["values"].flatten()]
    assert "the channel's max over positions" in beside.scale()
    found.save(tmp_path / "x.png")


def test_grey_crops_stand_beside_pictures_in_colour(tmp_path: Path) -> None:
    for i, shape in enumerate([(20, 24), (20, 24, 3)]):
        pixels = np.random.default_rng(i).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    index = vizcnn.scan(model(), files, tmp_path / "index", layers=["3"], progress=False, loaders=0).folder
    values = made(model(), "3:1", crops=str(index)).panels[1].values  # (5, 16, 16, 3)
    grey = [bool((tile == tile[:, :, :1]).all()) for tile in values]
    assert sorted(grey) == [False, True, True, True, True]  # three of them are blank


def test_crops_of_another_network_and_of_what_was_not_scanned_are_refused(index: Path) -> None:
    other = model(small_cnn(classes=7))
    with pytest.raises(ParameterError, match="the index of another network"):
        made(other, "3:1", crops=str(index))
    with pytest.raises(LayerNotFound, match="holds no layer '0'"):
        made(model(), "0:1", crops=str(index))
    with pytest.raises(TargetError, match="ranked for channels"):
        made(model(), "3:1@0,0", crops=str(index))
