from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vizcnn.errors import ImageError, ParameterError, VizcnnWarning
from vizcnn.inputs import dataset, pixels
from vizcnn.inputs.images import image_files, list_image_endings, open_photo, parse_colour
from vizcnn.inputs.photo import to_grey


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def png_of(path: Path, bits: int, channels: int, row: bytes, key: bytes = b"") -> Path:
    """A PNG of one row, with what Pillow does not write. key: the transparent colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = len(row) * 8 // bits // channels
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, 2 if channels == 3 else 0, 0, 0, 0))
    marks = chunk(b"tRNS", key) if key else b""
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + marks + pixels + chunk(b"IEND", b""))
    return path


def tiff_of(path: Path, row: bytes, bits: int, *, photometric: int = 1, sample: int = 1) -> Path:
    """A greyscale TIFF of one row. photometric: 0 where white is zero. sample: 1 unsigned, 2 signed, 3 floats."""
    width = len(row) * 8 // bits
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(row)), (339, sample)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    even = row + bytes(len(row) % 2)
    start = b"II*\0" + struct.pack("<I", 8 + len(even)) + even
    path.write_bytes(start + struct.pack("<H", len(tags)) + entries + bytes(4))
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


@pytest.mark.parametrize(
    ("bits", "photometric", "sample", "values", "shades"),
    [
        (16, 0, 1, [65535, 52428, 0], [0, 0.2, 1]),
        (16, 1, 2, [0, 16384, 32767], [0, 0.5, 1]),
        (8, 1, 2, [0, 64, 127], [0, 64 / 127, 1]),
        (32, 0, 3, [1.0, 0.75, 0.0], [0, 0.25, 1]),
        (32, 1, 3, [0.0, 0.25, 1.0], [0, 0.25, 1]),
    ],
)
def test_a_tiff_is_shown_as_it_says(
    tmp_path: Path, bits: int, photometric: int, sample: int, values: list[float], shades: list[float]
) -> None:
    row = np.array(values, f"<{'.uif'[sample]}{bits // 8}").tobytes()
    photo = open_photo(tiff_of(tmp_path / "a.tif", row, bits, photometric=photometric, sample=sample))
    np.testing.assert_allclose(photo.pixels[0, :, 0], shades, atol=1e-4)


def test_twelve_bits_of_a_tiff_are_all_there_are(tmp_path: Path) -> None:
    values = 0, 819, 4095, 1
    row = int("".join(f"{value:012b}" for value in values), 2).to_bytes(6, "big")
    photo = open_photo(tiff_of(tmp_path / "a.tif", row, 12))
    np.testing.assert_allclose(photo.pixels[0, :, 0], np.array(values) / 4095, atol=1e-6)


@pytest.mark.parametrize(("bits", "sample"), [(8, 2), (16, 2)])
def test_negative_samples_are_refused_not_wrapped_around(tmp_path: Path, bits: int, sample: int) -> None:
    row = np.array([-3, 100], f"<i{bits // 8}").tobytes()
    with pytest.raises(ImageError, match=r"must hold values in 0..(127|32767), got -3..100"):
        open_photo(tiff_of(tmp_path / "a.tif", row, bits, sample=sample))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_shade_of_a_png_shows_the_background(tmp_path: Path, bits: int) -> None:
    """Of any depth; those around it do not."""
    white = 2**bits - 1
    levels = [0, white] if bits == 1 else [0, white - 1, white]
    padded = (levels * 8)[:8]
    row = int("".join(f"{level:0{bits}b}" for level in padded), 2).to_bytes(bits, "big")
    file = png_of(tmp_path / "a.png", bits, 1, row, struct.pack(">H", white))
    with Image.open(file) as loaded:
        loaded.load()  # as a notebook does that shows it
        for source in (file, loaded):
            shown = open_photo(source, background="red").pixels[0]
            for level, pixel in zip(padded, shown, strict=True):
                np.testing.assert_allclose(pixel, [1, 0, 0] if level == white else [level / white] * 3, atol=1e-6)


def test_sixteen_bit_colours_too_alike_for_a_transparent_one_are_refused(tmp_path: Path) -> None:
    colours = struct.pack(">9H", 60000, 2000, 3000, 60001, 2000, 3000, 0, 0, 0)
    key, another = struct.pack(">3H", 60000, 2000, 3000), struct.pack(">3H", 9, 40000, 9)
    with pytest.raises(ImageError, match=r"a\.png: of its 16 bits .* Save it with an alpha channel"):
        open_photo(png_of(tmp_path / "a.png", 16, 3, colours, key))
    with pytest.raises(ImageError, match="an alpha channel"):  # black, which 8 bits can say too
        open_photo(png_of(tmp_path / "b.png", 16, 3, colours, bytes(6)))
    photo = open_photo(png_of(tmp_path / "c.png", 16, 3, colours, another))
    np.testing.assert_allclose(photo.pixels[0, 2], [0, 0, 0])
    np.testing.assert_allclose(photo.pixels[0, 0, 0], 60000 / 65535, atol=1 / 255)


DARK = np.array([[0, 4095, 1000]], np.uint16)  # white in 12 bits


def test_few_bits_in_sixteen_are_not_dark_without_a_word(tmp_path: Path) -> None:
    path = save(Image.fromarray(DARK), tmp_path / "a.png")
    colour_path = png_of(tmp_path / "b.png", 16, 3, np.repeat(DARK.astype(">u2"), 3).tobytes())
    for source in (DARK, np.dstack([DARK] * 3), path, Image.open(path), colour_path):
        with pytest.warns(
            VizcnnWarning, match=r"above 4095, of 65535 possible.*as an array of floats, divided by 4095"
        ):
            photo = open_photo(source)
        assert photo.pixels.max() == pytest.approx(4095 / 65535, abs=1 / 255)
    white_is_zero = tiff_of(tmp_path / "c.tif", (65535 - DARK).astype("<u2").tobytes(), 16, photometric=0)
    with pytest.warns(VizcnnWarning, match="above 4095"):
        open_photo(white_is_zero)


def test_an_image_that_is_bright_anywhere_or_black_or_of_bytes_is_no_such_case(tmp_path: Path) -> None:
    for array in (DARK * 5, DARK * 0, (DARK // 300).astype(np.uint8)):
        open_photo(array)
        open_photo(save(Image.fromarray(array), tmp_path / "a.png"))
    dark = struct.pack("<4H", 3 << 11 | 6 << 5 | 3, 0, 0, 0)  # 16 bits for a pixel, not for a channel
    start = struct.pack("<IHHI", 66 + len(dark), 0, 0, 66)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 3, len(dark), 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + start + header + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + dark)
    np.testing.assert_allclose(open_photo(tmp_path / "a.bmp").pixels[0, 0], np.array([24, 24, 24]) / 255, atol=1 / 255)


def test_arrays_of_the_other_byte_order_are_the_same() -> None:
    shades = np.array([[0, 13107, 65535]], np.uint16)
    np.testing.assert_array_equal(open_photo(shades.astype(">u2")).pixels, open_photo(shades).pixels)


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
        (np.full((2, 2), 200.0), r"in \[0, 1\], got 200..200. Divide by 255"),
        (np.full((2, 2), 4000.0), r"got 4000..4000. Divide by the value of white, such as 4095 or 65535"),
        (np.full((2, 2), -1.5), r"got -1.5..-1.5. Undo its normalisation"),
        (np.array([[0.5, np.nan]]), r"in \[0, 1\], got nan..nan. Replace NaN and infinity"),
        (np.zeros((2, 2), np.int64), "got int64"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_photo(array)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_an_image_in_parts_is_the_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are converted at a time; what Pillow makes of all of them at once is the reference."""
    shades = np.random.default_rng(0).integers(0, 256, (31, 17, 4), np.uint8)
    if mode in ("I;16", "F"):
        image = Image.fromarray(
            shades[:, :, 0].astype(np.uint16) * 257 if mode == "I;16" else shades[:, :, 0] / np.float32(255)
        )
        right = shades[:, :, :1] / 255
    else:
        image = Image.fromarray(shades).convert(mode) if mode != "P" else Image.fromarray(shades[:, :, :3]).quantize(9)
        clear = mode in ("LA", "RGBA")
        on_red = Image.alpha_composite(Image.new("RGBA", image.size, "red"), image.convert("RGBA")) if clear else image
        right = np.asarray(on_red.convert("L" if mode in ("1", "L") else "RGB")).reshape(31, 17, -1) / 255
    monkeypatch.setattr(pixels, "_AT_A_TIME", 50)
    np.testing.assert_allclose(open_photo(image, background="red").pixels, right, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_AT_A_TIME", 20)
    image, exif = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)), Image.Exif()
    exif[0x0112] = orientation
    for ending in ("png", "tif"):
        path = save(image, tmp_path / f"a.{ending}", exif=exif)
        with Image.open(path) as stored:
            right = np.asarray(ImageOps.exif_transpose(stored)) / np.float32(255)
        np.testing.assert_array_equal(open_photo(path).pixels, right)


@pytest.mark.parametrize("ending", ["webp", "png", "jpg"])
def test_damaged_metadata_spoil_no_image(ending: str, tmp_path: Path) -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).bytes(3000)
        exif = noise if seed else b"Exif\0\0II*\0\xff\xff\xff\x7f" + noise
        path = save(Image.new("RGB", (9, 7), "white"), tmp_path / f"a.{ending}", exif=exif)
        assert open_photo(path).size == (7, 9)


def test_a_large_image_is_held_twice_at_most(tmp_path: Path) -> None:
    """As Pillow holds it, in 4 bytes for each pixel, and as bytes of RGB, in 3."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the most memory that a process had is known on Linux only")
    Image.new("RGBA", (4000, 4000)).save(tmp_path / "a.png")
    program = f"""
import re
from vizcnn.inputs.images import open_photo
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
open_photo("sample:grace_hopper")
before = peak()
open_photo({str(tmp_path / "a.png")!r})
print((peak() - before) / 4000**2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 6 < float(done.stdout) < 9


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


def test_an_icon_is_not_larger_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (300, 200)).save(picture, "PNG")
    header = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture.getvalue()), 22)
    (tmp_path / "a.ico").write_bytes(header + picture.getvalue())
    monkeypatch.setattr("vizcnn.inputs.images.LARGEST", 50_000)
    with pytest.raises(ImageError, match="300 x 200 px, more than 50,000"):
        open_photo(tmp_path / "a.ico")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would have Ghostscript draw an EPS file, whatever its name."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with pytest.raises(ImageError, match=r"photo\.jpg is EPS, a format that is not read here. Save the image as PNG"):
        open_photo(tmp_path / "photo.jpg")
    assert not (tmp_path / "started").exists()


def test_the_endings_of_images_are_those_of_the_formats_that_are_read() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".webp", ".pgm", ".mpo", ".gif", ".bmp"} <= list_image_endings()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".grib", ".h5", ".mpg", ".fits"} & list_image_endings()


def test_a_format_that_begins_well_and_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.tif begins as TIFF does, but is damaged, or of a kind that Pillow"):
        open_photo(tiff_of(tmp_path / "a.tif", bytes(5), 10))


def special(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "x.png"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(tmp_path)
            bound.bind("x.png")
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
@pytest.mark.usefixtures("in_time")
def test_what_may_never_end_is_refused_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=rf"x\.png is {kind}\. Save what comes from it in a file"):
        open_photo(special(tmp_path, kind))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two\nlines.png", r"two\\nlines\.png does not exist"),
        ("zero\0.png", r"zero\\x00\.png does not exist"),
        ("half\udce9.png", r"half\\udce9\.png does not exist"),
        (300 * "x" + ".png", "xx.png cannot be read: File name too long"),
    ],
)
def test_whatever_a_name_holds_an_error_is_one_line_of_text(name: str, message: str, tmp_path: Path) -> None:
    (found,) = image_files(tmp_path / name)
    with pytest.raises(ImageError, match=message) as caught:
        open_photo(found)
    assert str(caught.value).isprintable()


def test_what_is_short_is_not_called_damaged(photo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(ImageError, match=r"photo\.png cannot be opened: too many files are open"):
            open_photo(photo_file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", without_memory)
    with pytest.raises(ImageError, match=r"image needs more memory than there is"):
        open_photo(Image.new("RGB", (2, 2)))


def test_a_background_that_is_no_colour_is_no_fault_of_the_image(photo_file: Path) -> None:
    with pytest.raises(ParameterError, match="the background is a colour, such as white or #7f7f7f, got 'wihte'"):
        open_photo(photo_file, background="wihte")


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


def test_what_is_hidden_in_a_folder_is_no_image_and_what_is_lost_is_one(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.png"):
        save(Image.new("RGB", (1, 1)), tmp_path / name)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert image_files(tmp_path) == [str(tmp_path / "a.png"), str(tmp_path / "gone.png")]
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        open_photo(tmp_path / "gone.png")


def test_colours_and_luma() -> None:
    assert parse_colour("#ff0080") == (1, 0, 128 / 255)
    np.testing.assert_allclose(to_grey(np.array([[[1.0, 0, 0]]], np.float32)), [[[0.299]]])


# --- open files, addresses, HEIF --------------------------------------------------------------------------------------


def test_an_open_file_is_an_image(tmp_path: Path) -> None:
    path = save(Image.effect_noise((9, 7), 50), tmp_path / "a.png")
    right = open_photo(path)
    in_memory = io.BytesIO(path.read_bytes())
    with path.open("rb") as file:
        for source, name in ((file, "a.png"), (in_memory, "image"), (in_memory, "image")):  # again, from the start
            photo = open_photo(source)
            assert (photo.name, photo.sha256()) == (name, right.sha256())
        assert not file.closed
    with path.open(encoding="latin-1") as text, pytest.raises(ImageError, match="a.png is open as text. Open it with"):
        open_photo(text)
    with pytest.raises(ImageError, match="image is empty"):
        open_photo(io.BytesIO())


def test_what_comes_from_a_pipe_that_is_open_is_an_image(tmp_path: Path) -> None:
    path = save(Image.effect_noise((9, 7), 50), tmp_path / "a.png")
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
        assert open_photo(process.stdout).sha256() == open_photo(path).sha256()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "https://example.org/a.jpg",
            "https://example.org/a.jpg is an address, and only files are read here",
        ),
        (Path("https://example.org/a.jpg"), "https://example.org/a.jpg is an address"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg is an address, .* Download it first, and name the file"),
        ("HTTP://example.org", "HTTP://example.org is an address"),
        ("file:///tmp/a.jpg", "is an address, and only files are read here. Name the file by its path alone"),
    ],
)
def test_an_address_gets_a_sentence_of_its_own(address: str | Path, said: str) -> None:
    for read in (open_photo, dataset):
        with pytest.raises(ImageError, match=said):
            read(address)


def test_what_looks_like_an_address_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    save(Image.new("L", (3, 2)), tmp_path / "s3:" / "a.png")
    assert open_photo("s3://a.png").size == (2, 3)
    with pytest.raises(ImageError, match=r"c:/a.png does not exist"):  # a drive
        open_photo("c:/a.png")


def heif_of(image: Image.Image, **options: object) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="HEIF needs pillow-heif, the extra heic")
    data = io.BytesIO()
    heif.from_pillow(image).save(data, **options)
    return data.getvalue()


def test_a_phones_heic_is_read_upright(tmp_path: Path) -> None:
    """In a process of its own, in which nobody has taught Pillow the format."""
    shades = np.kron(np.arange(0, 240, 20).astype(np.uint8).reshape(3, 4), np.ones((16, 16), np.uint8))
    image, exif = Image.fromarray(np.stack([shades, 255 - shades, shades // 2], 2)), Image.Exif()
    exif[0x0112] = 6
    written = heif_of(image, quality=100, exif=exif.tobytes())
    (tmp_path / "a.heic").write_bytes(written)
    program = f"""
import numpy, vizcnn
from vizcnn.inputs import dataset, image_files
photo = vizcnn.open_photo({str(tmp_path / "a.heic")!r})
assert photo.held.dtype == numpy.uint8
assert len(image_files({str(tmp_path)!r})) == len(dataset({str(tmp_path)!r})) == 1
numpy.save({str(tmp_path / "read.npy")!r}, photo.pixels)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    import pillow_heif

    read, decoded = np.load(tmp_path / "read.npy"), np.asarray(pillow_heif.open_heif(written).to_pillow())
    np.testing.assert_allclose(read, decoded / 255, atol=1e-6)
    upright = np.rot90(np.asarray(image), -1) / 255
    differences = [np.abs(read - np.rot90(upright, turn)).mean() for turn in (0, 2)]
    assert differences[0] < 0.1 < differences[1]  # how exactly it was written is the encoder's affair


def test_without_its_package_heic_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # import fails
    monkeypatch.setattr(Image, "OPEN", {kind: how for kind, how in Image.OPEN.items() if kind != "HEIF"})
    for brand in (b"heic", b"mif1"):
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
        with pytest.raises(ImageError, match=r"a.heic is HEIF, .* pillow-heif: pip install 'vizcnn\[heic\]'"):
            open_photo(tmp_path / "a.heic")
    assert image_files(tmp_path) == [str(tmp_path / "a.heic")]  # not passed over in silence
    assert dataset(tmp_path).names == ["a.heic"]
