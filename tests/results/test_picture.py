from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from support import small_cnn

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.results import Optimised, Pictures, Scenery


def model(channels: Any = 3) -> vizcnn.Model:
    return vizcnn.Model(small_cnn(channels), size=16, channels=channels)


def optimised(channels: int = 3, frames: int = 3, **more: Any) -> Optimised:
    probe = vizcnn.Maximize(steps=6, frames=frames, preset="lecture")
    return probe(model(channels), progress=False, **{"target": "3:0-4", **more})


def photo(height: int = 40, width: int = 50, channels: int = 3) -> Any:
    return np.random.default_rng(height).random((height, width, channels), np.float32)


def pictures(channels: int = 3, frames: int = 2, several: bool = False) -> Pictures:
    photos = [photo(channels=channels), photo(60, 45, channels)] if several else photo(channels=channels)
    return vizcnn.Dream(steps=4, frames=frames)(model(channels), photos, "3:1", progress=False)


def as_bytes(image: Any) -> Any:
    return (image * 255).round().astype(np.uint8)


# --- optimised pictures -----------------------------------------------------------------------------------------------


def test_the_numbers_that_were_reached_are_saved_with_the_pictures(tmp_path: Path) -> None:
    found = optimised()
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["reached"], found.reached)
        np.testing.assert_array_equal(saved["pictures"], found.panels[0].values)
        np.testing.assert_array_equal(saved["pictures.channels"], range(5))
        np.testing.assert_array_equal(saved["frames"], found.frames)
        assert json.loads(str(saved["manifest"])) == found.manifest()
    tensors = load_file(found.save(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(tensors["reached"], found.reached)
    assert json.loads(found.save(tmp_path / "a.json").read_text())["reached"] == found.reached.tolist()
    assert "frames" not in optimised(frames=0).arrays()


def test_the_tiles_are_the_pictures_and_the_frames_end_at_them() -> None:
    for channels in (1, 3):
        found = optimised(channels)
        last = found.frames[-1] if channels == 3 else found.frames[-1][..., 0]
        np.testing.assert_array_equal(last, as_bytes(found.panels[0].values))
        assert found.frames.shape[1:] == (5, 16, 16, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_has_every_frame_and_ends_on_the_pictures(channels: int, tmp_path: Path) -> None:
    found = optimised(channels)
    with Image.open(found.save(tmp_path / "a.gif")) as film:
        assert film.format == "GIF"
        assert getattr(film, "n_frames", 1) == len(found.frames)
        assert min(film.size) >= 96
        film.seek(len(found.frames) - 1)
        assert film.info["duration"] > 1000
        shown = np.asarray(film.convert("RGB"))
    first = found.frames[-1, 0].repeat(6, 0).repeat(6, 1)  # the first tile of 16 px enlarged to 96 px
    np.testing.assert_allclose(shown[2:98, 2:98], np.broadcast_to(first, (96, 96, 3)), atol=60 if channels == 3 else 2)


def test_the_figure_names_every_picture_and_what_it_reached(tmp_path: Path) -> None:
    found = optimised()
    texts = [text.get_text() for ax in found.figure().axes for text in (ax.title, *ax.texts)]
    assert all(any(f"3:{i}" in text and f"{found.reached[i]:.3g}" in text for text in texts) for i in range(5))
    for kind in ("png", "pdf", "svg", "jpg", "html"):
        assert found.save(tmp_path / f"a.{kind}").stat().st_size > 1000


# --- photographs made over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_the_picture_itself_with_its_provenance(channels: int, tmp_path: Path) -> None:
    found = pictures(channels)
    with Image.open(found.save(tmp_path / "a.png")) as saved:
        assert saved.size == (50, 40)
        shown = np.asarray(saved)
        record = json.loads(saved.info["vizcnn"])
    np.testing.assert_array_equal(shown.reshape(40, 50, channels), as_bytes(found.scenes[0].image))
    assert record["probe"] == "dream"
    assert record["weights_sha256"] == model(channels).weights_sha256()
    with Image.open(found.save(tmp_path / "a.jpg")) as saved:
        assert saved.format == "JPEG"
        assert saved.size == (50, 40)


def test_several_pictures_stand_side_by_side_on_white(tmp_path: Path) -> None:
    found = pictures(several=True)
    shown = np.asarray(Image.open(found.save(tmp_path / "a.png")))
    assert shown.shape == (60, 95, 3)
    np.testing.assert_array_equal(shown[:40, :50], as_bytes(found.scenes[0].image))
    np.testing.assert_array_equal(shown[:, 50:], as_bytes(found.scenes[1].image))
    assert (shown[40:, :50] == 255).all()
    np.testing.assert_array_equal(np.asarray(found.pil()), shown)


def test_every_picture_is_saved_as_numbers_too(tmp_path: Path) -> None:
    found = pictures(several=True)
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["image"], found.scenes[0].image)
        np.testing.assert_array_equal(saved["image-1"], found.scenes[1].image)
        np.testing.assert_array_equal(saved["frames-1"], found.scenes[1].frames)
    assert set(pictures(frames=0).arrays()) == {"image"}
    assert pictures().arrays()["image"].dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dreams_animation_has_every_frame(channels: int, tmp_path: Path) -> None:
    found = pictures(channels)
    with Image.open(found.save(tmp_path / "a.gif")) as film:
        assert getattr(film, "n_frames", 1) == len(found.scenes[0].frames) > 1
        assert film.size == (50, 40)
    both = pictures(channels, several=True)
    with Image.open(both.save(tmp_path / "b.gif")) as film:
        assert film.size == (95, 60)


def test_an_animation_without_frames_says_how_to_get_them(tmp_path: Path) -> None:
    for found in (optimised(frames=0), pictures(frames=0)):
        with pytest.raises(ParameterError, match="needs frames, and none were kept. Ask for them: frames=24"):
            found.save(tmp_path / "a.gif")
        assert not (tmp_path / "a.gif").exists()
    with pytest.raises(ParameterError, match="is no animation. Save it as .png"):
        vizcnn.Filters()(model()).save(tmp_path / "a.gif")


def test_the_figure_shows_the_picture_beside_what_it_was_made_from(tmp_path: Path) -> None:
    axes = pictures(several=True).figure().axes
    assert [ax.get_title() for ax in axes] == ["image", "result of dream", "image", "result of dream"]
    for kind in ("pdf", "svg", "html"):
        assert pictures().save(tmp_path / f"a.{kind}").stat().st_size > 1000


def test_values_are_told_before_and_after() -> None:
    scene = Scenery(np.zeros((4, 6, 3), np.float32), (), {"energy(3)": (0.5, 2.0)}, np.empty((0, 4, 6, 3), np.uint8))
    assert scene.describe() == "6 x 4 px: energy(3) 0.5 -> 2"
    values = {"energy(3)": {"before": 0.5, "after": 2.0}}
    assert scene.summary() == {"sources": {}, "size": [4, 6], "values": values}
    whole = Pictures(pictures().provenance, (scene, scene), partial=True)
    assert whole.describe().count("(stopped early)") == 2
    assert whole.manifest()["partial"] is True


def test_values_outside_the_range_are_clipped_and_not_wrapped() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5]).repeat(3, 2, 1).permute(1, 2, 0).numpy()  # (2, 5, 3)
    scene = Scenery(image, (), {}, np.empty((0, 2, 5, 3), np.uint8))
    shown = np.asarray(Pictures(pictures().provenance, (scene,)).pil())
    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]
