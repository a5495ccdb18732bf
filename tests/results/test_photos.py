"""What results keep of photographs: enough to draw them, and their own sizes and places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import small_cnn

import vizcnn
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, to_floats
from vizcnn.results import ReducedPhoto, StoredPhoto
from vizcnn.results.photos import DRAWN_PHOTOS, DRAWN_SIDE, SIDE, cut_out, reduce_photo


def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, labels=list("abcde"), name="small")


def pattern(height: int, width: int, channels: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Rings: detail of every size, so that a coarse copy would look different."""
    y, x = np.mgrid[0:height, 0:width]
    away = np.hypot(y - height / 2, x - width / 2)
    rings = 0.5 + 0.5 * np.sin(away[:, :, None] ** 1.5 / np.array([90.0, 120.0, 150.0]))
    levels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (rings[:, :, :channels] * 255).astype(np.uint8)
    return levels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("as_floats", [False, True])
def test_a_large_photograph_is_kept_small_with_its_own_size(channels: int, as_floats: bool) -> None:
    levels = pattern(1500, 2400, channels)
    photo = Photo(to_floats(levels) if as_floats else levels, "a.jpg")
    kept = reduce_photo(photo)
    assert isinstance(kept, ReducedPhoto)
    assert kept.held.shape == (640, DRAWN_SIDE, channels)
    assert (kept.size, kept.name, kept.channels) == ((1500, 2400), "a.jpg", channels)
    assert kept.sha256() == kept.original_sha256 == photo.sha256()
    assert kept.pixels.shape == photo.pixels.shape
    blocks = photo.pixels[: 1500 // 60 * 60].reshape(25, 60, 40, 60, channels).mean((1, 3))  # means of 60 x 60 px
    of_copy = kept.pixels.reshape(25, 60, 40, 60, channels).mean((1, 3))
    np.testing.assert_allclose(of_copy, blocks, atol=0.02)
    assert reduce_photo(kept) is kept
    small = Photo(levels[:900, :1000])
    assert reduce_photo(small) is small


def test_what_is_found_does_not_depend_on_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = pattern(1500, 2400)
    images = [levels, levels[::2, ::2]]
    found = vizcnn.Cam()(model(), images, "b", progress=False)
    monkeypatch.setattr("vizcnn.probing.preparation.DRAWN_SIDE", 2400)
    whole = vizcnn.Cam()(model(), images, "b", progress=False)
    assert [type(photo) for photo in found.photos] == [ReducedPhoto, ReducedPhoto]
    assert [type(photo) for photo in whole.photos] == [Photo, Photo]
    for result in (found, whole):
        assert [photo.size for photo in result.photos] == [(1500, 2400), (750, 1200)]
    assert found.manifest() == whole.manifest()  # provenance with digests, marks, sentences
    assert found.seen == whole.seen
    np.testing.assert_array_equal(found.values, whole.values)


def test_a_picture_is_as_sharp_as_one_of_all_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = pattern(1500, 2000)

    def draw(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        found = vizcnn.Cam()(model(), levels, "b", progress=False)
        with Image.open(found.save(tmp_path / f"{name}.png")) as picture:
            return np.asarray(picture.convert("RGB"), np.float64)

    small = draw("small")
    monkeypatch.setattr("vizcnn.probing.preparation.DRAWN_SIDE", 2000)
    whole = draw("whole")
    assert small.shape == whole.shape
    monkeypatch.setattr("vizcnn.probing.preparation.DRAWN_SIDE", 128)
    coarse = draw("coarse")
    assert np.abs(small - whole).mean() < 2 < np.abs(coarse - whole).mean()
    assert np.abs(small - whole).mean() < np.abs(coarse - whole).mean() / 4


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_saved_result_opens_with_the_thumbnail_and_its_places(ending: str, tmp_path: Path) -> None:
    levels = pattern(1500, 2400)
    found = vizcnn.Cam()(model(), [levels, levels[:40, :30]], "b", progress=False)
    opened = vizcnn.load_result(found.save(tmp_path / f"a{ending}"))
    assert isinstance(opened, vizcnn.Heatmap)
    first, second = opened.photos
    assert isinstance(first, StoredPhoto)
    assert first.size == (1500, 2400)
    assert first.sha256() == found.photos[0].sha256() == Photo(levels).sha256()
    assert first.thumbnail is not None
    assert first.thumbnail.shape == (160, SIDE, 3)
    assert type(second) is Photo
    assert second.held.dtype == np.uint8  # as it was held before
    np.testing.assert_array_equal(second.held, levels[:40, :30])
    assert opened.marks == found.marks
    assert opened.seen == found.seen


def test_beyond_a_number_of_images_thumbnails_are_kept() -> None:
    levels = pattern(300, 400)
    many = (levels for _ in range(DRAWN_PHOTOS + 2))
    found = vizcnn.Saliency()(model(), many, "b", progress=False)
    assert len(found.photos) == DRAWN_PHOTOS + 2
    assert {photo.held.shape for photo in found.photos[:DRAWN_PHOTOS]} == {(300, 400, 3)}
    assert {photo.held.shape for photo in found.photos[DRAWN_PHOTOS:]} == {(192, SIDE, 3)}
    assert {photo.size for photo in found.photos} == {(300, 400)}
    np.testing.assert_array_equal(found.values[-1], found.values[0])


def test_a_dream_and_a_style_are_made_from_all_pixels() -> None:
    levels = pattern(1300, 1400)
    dream = vizcnn.Dream(size=1300, octaves=1, steps=1, rate=1e-9)(model(), levels, "0:1", progress=False)
    assert dream.scenes[0].image.shape == (1207, 1300, 3)
    as_floats = to_floats(levels)
    from_floats = vizcnn.Dream(size=1300, octaves=1, steps=1, rate=1e-9)(model(), as_floats, "0:1", progress=False)
    np.testing.assert_array_equal(dream.scenes[0].image, from_floats.scenes[0].image)
    assert isinstance(dream.scenes[0].sources[0][1], ReducedPhoto)
    detail = np.abs(np.diff(dream.scenes[0].image, axis=1)).mean()
    blurred = np.abs(np.diff(reduce_photo(Photo(levels)).pixels, axis=1)).mean()
    assert detail > 1.05 * blurred


def test_a_piece_of_a_copy_lies_where_it_lies_in_the_photograph() -> None:
    photo = Photo(pattern(1500, 2400))
    box = Box(300, 600.5, 420, 700)
    right, found = (cut_out(one, box) for one in (photo, reduce_photo(photo)))
    assert right.shape == found.shape == (120, 100, 3)
    assert np.abs(right - found).mean() < 0.05 < np.abs(right - cut_out(photo, Box(310, 610, 430, 710))).mean()
