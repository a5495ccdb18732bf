from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vizcnn.errors import ImageError
from vizcnn.images import colour, grey, image_files, open_photo


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_rgb_is_scaled_to_zero_one(tmp_path: Path) -> None:
    photo = open_photo(save(Image.new("RGB", (3, 2), (255, 0, 51)), tmp_path / "a.png"))
    assert photo.size == (2, 3)
    assert photo.name == "a.png"
    assert photo.pixels.dtype == np.float32
    np.testing.assert_allclose(photo.pixels[0, 0], [1, 0, 0.2], atol=1e-6)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    photo = open_photo(save(image, tmp_path / "a.png", exif=exif))
    assert photo.size == (4, 2)
    assert photo.pixels[0, 1, 0] == 1


def test_transparent_parts_show_the_background(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), tmp_path / "a.png")
    np.testing.assert_array_equal(open_photo(path).pixels[0, 0], [1, 1, 1])
    np.testing.assert_array_equal(open_photo(path, background="black").pixels[0, 0], [0, 0, 0])


def test_sixteen_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.array([[0, 13107, 65535]], np.uint16)
    photo = open_photo(save(Image.fromarray(shades), tmp_path / "deep.png"))
    np.testing.assert_allclose(photo.pixels[0, :, 0], [0, 0.2, 1], atol=1e-6)


def test_sixteen_bit_tiff_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.array([[0, 13107, 65535]], np.uint16)
    photo = open_photo(save(Image.fromarray(shades), tmp_path / "deep.tiff"))
    np.testing.assert_allclose(photo.pixels[0, :, 0], [0, 0.2, 1], atol=1e-6)


def test_float_image_outside_zero_one_is_refused_not_clipped(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.array([[0, 40.0]], np.float32)), tmp_path / "f.tiff")
    with pytest.raises(ImageError, match=r"F-mode image must hold values in 0..1, got 0..40"):
        open_photo(path)


def test_grey_stays_grey(tmp_path: Path) -> None:
    assert open_photo(save(Image.new("L", (2, 2), 51), tmp_path / "a.png")).pixels.shape == (2, 2, 1)
    assert open_photo(save(Image.new("1", (2, 2), 1), tmp_path / "b.png")).pixels.max() == 1


def test_cmyk_palette_and_animation_become_rgb(tmp_path: Path) -> None:
    cmyk = save(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), tmp_path / "a.tiff")
    np.testing.assert_allclose(open_photo(cmyk).pixels[0, 0], [1, 0, 0], atol=0.01)
    palette = save(Image.new("RGB", (1, 1), (0, 0, 255)).quantize(), tmp_path / "b.png")
    np.testing.assert_array_equal(open_photo(palette).pixels[0, 0], [0, 0, 1])
    red, blue = Image.new("RGB", (1, 1), "red"), Image.new("RGB", (1, 1), "blue")
    animation = save(red, tmp_path / "c.gif", save_all=True, append_images=[blue])
    np.testing.assert_array_equal(open_photo(animation).pixels[0, 0], [1, 0, 0])


def test_arrays_of_every_documented_kind() -> None:
    assert open_photo(np.full((2, 2), 255, np.uint8)).pixels.max() == 1
    assert open_photo(np.full((2, 2, 3), 65535, np.uint16)).pixels.max() == 1
    assert open_photo(np.full((2, 2, 1), 0.5)).pixels.dtype == np.float32
    half_clear = np.array([[[1.0, 0, 0, 0.5]]])
    np.testing.assert_allclose(open_photo(half_clear).pixels[0, 0], [1, 0.5, 0.5])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), r"\(H, W\) or \(H, W, 1 \| 3 \| 4\), got \(2, 2, 2\)"),
        (np.zeros((0, 2)), r"got \(0, 2\)"),
        (np.full((2, 2), 200.0), r"in \[0, 1\], got 200..200"),
        (np.full((2, 2), np.nan), r"in \[0, 1\]"),
        (np.zeros((2, 2), np.int64), "got int64"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_photo(array)


def bad_file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "truncated":
        buffer = io.BytesIO()
        Image.effect_noise((200, 200), 50).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue()[:3000])
    elif kind == "huge":
        Image.new("1", (10000, 9000)).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    elif kind == "gigantic":
        Image.new("1", (20000, 9000)).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("text", "is not an image in a format that Pillow reads"),
        ("truncated", "cannot be decoded, it is damaged or truncated"),
        ("huge", "10000 x 9000 px, more than 89,478,485"),
        ("gigantic", "more than 89,478,485"),
        ("folder", "is a folder"),
    ],
)
def test_a_bad_file_is_one_clear_line_that_names_it(tmp_path: Path, kind: str, message: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(ImageError, match=message) as caught:
        open_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_pillow_image_is_an_image_error_too(tmp_path: Path) -> None:
    with Image.open(bad_file(tmp_path, "truncated")) as image, pytest.raises(ImageError, match="cannot be decoded"):
        open_photo(image)


def test_the_sample_that_ships_with_matplotlib() -> None:
    assert open_photo("sample:grace_hopper").pixels.shape == (600, 512, 3)
    with pytest.raises(ImageError, match="no sample named 'grace_hoper'. Did you mean 'grace_hopper'?"):
        open_photo("sample:grace_hoper")


def test_a_folder_stands_for_its_images_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        save(Image.new("RGB", (1, 1)), tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert image_files(tmp_path) == [str(tmp_path / "a.jpg"), str(tmp_path / "b.png")]
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        image_files(tmp_path / "none")


def test_colours_and_luma() -> None:
    assert colour("#ff0080") == (1, 0, 128 / 255)
    np.testing.assert_allclose(grey(np.array([[[1.0, 0, 0]]], np.float32)), [[[0.299]]])
