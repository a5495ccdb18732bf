"""Files of any number of channels: .npy, and TIFF of which Pillow reads some bands, or fewer bits, or none."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vizcnn
from vizcnn.errors import ImageError
from vizcnn.inputs import bands

Array = np.ndarray[Any, np.dtype[Any]]
SCENE = np.random.default_rng(0).integers(0, 65536, (6, 7, 5)).astype(np.uint16)


def tiff_of(array: Array, *, photometric: int = 1, extra: tuple[int, ...] = (), planar: int = 1) -> bytes:
    """A TIFF of an array (H, W, C), uncompressed. photometric: 1 grey, 2 RGB. extra: what samples beside colours are, 0
    unknown, 2 opacity. planar: 1 pixel by pixel, 2 band by band."""
    height, width, samples = array.shape
    data = array.tobytes() if planar == 1 else np.ascontiguousarray(np.moveaxis(array, 2, 0)).tobytes()
    strips = 1 if planar == 1 else samples
    kind = 3 if array.dtype.kind == "f" else 1
    tags: list[tuple[int, str, list[int]]] = [(256, "I", [width]), (257, "I", [height])]
    tags += [(258, "H", [array.itemsize * 8] * samples), (259, "H", [1]), (262, "H", [photometric])]
    tags += [(273, "I", [0] * strips), (277, "H", [samples]), (278, "I", [height])]
    tags += [(279, "I", [len(data) // strips] * strips), (284, "H", [planar])]
    tags += [(338, "H", [*extra])] if extra else []
    tags += [(339, "H", [kind] * samples)]
    start = 8 + 2 + 12 * len(tags) + 4
    packed = {tag: struct.pack(f"<{len(values)}{form}", *values) for tag, form, values in tags}
    first = start + sum(len(value) for value in packed.values() if len(value) > 4)
    packed[273] = struct.pack(f"<{strips}I", *(first + i * len(data) // strips for i in range(strips)))
    entries, beyond = b"", b""
    for tag, form, values in tags:
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[form], len(values))
        value = packed[tag]
        entries += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(beyond))
        beyond += value if len(value) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beyond + data


def save_array(array: Array) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    return file


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_an_npy_file_is_the_array_that_it_holds(tmp_path: Path, channels: int) -> None:
    array = np.random.default_rng(0).random((6, 7, channels), np.float32)
    np.save(tmp_path / "scene.npy", array)
    photo = vizcnn.open_photo(tmp_path / "scene.npy", channels=channels)
    assert (photo.name, photo.channels) == ("scene.npy", channels)
    np.testing.assert_array_equal(photo.pixels, array)


def test_npy_files_are_images_of_a_folder_and_of_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    (folder / "wood").mkdir(parents=True)
    (folder / "town").mkdir()
    np.save(folder / "wood" / "a.npy", SCENE)
    np.save(folder / "town" / "b.npy", SCENE // 2)
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        for file in sorted(folder.rglob("*.npy")):
            archive.write(file, file.relative_to(folder))
    for place in (folder, tmp_path / "scenes.zip"):
        images = vizcnn.inputs.dataset(place)
        assert list(images.names) == ["town/b.npy", "wood/a.npy"]
        photo, label = images.read(1)
        assert label == "wood"
        np.testing.assert_allclose(photo.pixels, SCENE / 65535, atol=1e-7)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (save_array(np.array([[object()]], dtype=object)).getvalue(), "array of Python objects could run code"),
        (save_array(SCENE).getvalue()[:-3], "the file is cut off, with 417 of 420 bytes"),
        (save_array(SCENE).getvalue()[:40], "cannot be decoded, it is damaged or truncated"),
        (save_array(SCENE[None]).getvalue(), r"is \(H, W\) or \(H, W, C\), got \(1, 6, 7, 5\). Save one image"),
        (save_array(np.zeros((0, 3))).getvalue(), "It needs at least one"),
    ],
)
def test_npy_files_that_are_no_image_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        vizcnn.open_photo(io.BytesIO(data))


def test_an_npy_file_that_promises_more_than_it_holds_asks_for_no_memory() -> None:
    header = save_array(SCENE).getvalue()
    for promised in (b"(9999999, 9, 5)", b"(9999, 8888, 5)"):
        data = header.replace(b"(6, 7, 5), }" + b" " * (len(promised) - 9), promised + b", }")  # of the same length
        assert data != header
        with pytest.raises(ImageError, match="more than 89,478,485|cut off"):
            vizcnn.open_photo(io.BytesIO(data))


@pytest.mark.parametrize("samples", [4, 2])
def test_opacity_is_a_channel_for_a_network_that_takes_it(samples: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, samples)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, {4: "RGBA", 2: "LA"}[samples]).save(file, "PNG")
    np.testing.assert_array_equal(vizcnn.open_photo(file, channels=samples).held, pixels)
    assert vizcnn.open_photo(file).channels == 3  # in front of white
    if samples == 4:
        np.testing.assert_array_equal(vizcnn.open_photo(pixels, channels=4).held, pixels)
        assert vizcnn.open_photo(pixels).channels == 3


ODD = [
    pytest.param(SCENE[:, :, :2], {"extra": (0,)}, id="grey and another"),
    pytest.param((SCENE[:, :, :4] >> 8).astype(np.uint8), {"photometric": 2, "extra": (0,)}, id="RGB and infrared"),
    pytest.param(SCENE[:, :, :4], {"photometric": 2, "extra": (0,)}, id="RGB and infrared in 16 bits"),
    pytest.param(SCENE, {"extra": (0,) * 4}, id="five"),
    pytest.param(SCENE, {"photometric": 2, "extra": (0, 0), "planar": 2}, id="five, band by band"),
    pytest.param((SCENE / 65535).astype(np.float32), {"extra": (0,) * 4}, id="five of floats"),
    pytest.param(SCENE[:, :, :3], {"photometric": 2, "planar": 2}, id="RGB in 16 bits, band by band"),
]


@pytest.mark.parametrize(("array", "layout"), ODD)
def test_bands_that_pillow_does_not_read_are_read_by_tifffile(array: Array, layout: dict[str, Any]) -> None:
    pytest.importorskip("tifffile")
    right = array if array.dtype.kind == "f" else array / np.float32(np.iinfo(array.dtype).max)
    photo = vizcnn.open_photo(io.BytesIO(tiff_of(array, **layout)), channels=array.shape[2])
    np.testing.assert_allclose(photo.pixels, right, atol=1e-7)


@pytest.mark.parametrize(("array", "layout"), ODD)
def test_without_tifffile_such_bands_are_refused_and_never_dropped(
    array: Array, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(ImageError, match=rf"{array.shape[2]} bands of .*pip install 'vizcnn\[tiff\]'.*\.npy file"):
        vizcnn.open_photo(io.BytesIO(tiff_of(array, **layout)), channels=array.shape[2])


def save_pages(pages: list[Image.Image]) -> io.BytesIO:
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file


def test_a_grey_page_for_each_channel_is_a_channel() -> None:
    file = save_pages([Image.fromarray(SCENE[:, :, i] >> 4) for i in range(5)])
    photo = vizcnn.open_photo(file, channels=5, white=4095)
    np.testing.assert_allclose(photo.pixels, (SCENE >> 4) / 4095, atol=1e-6)
    for others in (None, 1, 3, 4):  # the first page, as ever
        assert vizcnn.open_photo(file, channels=others, white=4095).held.shape[:2] == SCENE.shape[:2]
        assert vizcnn.open_photo(file, channels=others, white=4095).channels in (1, 3)


def test_three_grey_pages_are_three_photographs() -> None:
    file = save_pages([Image.fromarray(SCENE[:, :, i].astype(np.uint8)) for i in range(3)])
    photo = vizcnn.open_photo(file, channels=3)
    np.testing.assert_allclose(photo.pixels[..., -1], SCENE[:, :, 0].astype(np.uint8) / 255, atol=1e-6)


def test_pages_of_several_sizes_are_no_channels() -> None:
    file = save_pages([Image.new("L", (8, 8 + i)) for i in range(4)])
    with pytest.raises(ImageError, match="its 4 pages are not of one size and kind"):
        vizcnn.open_photo(file, channels=4)


def test_twelve_bits_of_colour_are_read_by_tifffile() -> None:
    pytest.importorskip("tifffile")
    photo = vizcnn.open_photo(io.BytesIO(tiff_of(SCENE[:, :, :3] >> 4, photometric=2)), white=4095)
    np.testing.assert_allclose(photo.pixels, (SCENE[:, :, :3] >> 4) / 4095, atol=1e-6)


@pytest.mark.parametrize("extra", [(), (2,)])
def test_what_pillow_reads_whole_needs_no_other_package(extra: tuple[int, ...]) -> None:
    array = (SCENE[:, :, : 3 + len(extra)] >> 8).astype(np.uint8)
    file = io.BytesIO(tiff_of(array, photometric=2, extra=extra))
    assert not bands.needs_tifffile(file, vizcnn.inputs.reading.PLAIN)
    np.testing.assert_array_equal(vizcnn.open_photo(file, channels=array.shape[2]).held, array)
