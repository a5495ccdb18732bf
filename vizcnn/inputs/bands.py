"""Bands: images of any number of channels in files, as arrays: .npy, and TIFF where Pillow would not read all."""

from __future__ import annotations

import os
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vizcnn.errors import ImageError
from vizcnn.inputs.pixels import LARGEST, refuse_size
from vizcnn.inputs.reading import Reading
from vizcnn.process import ignore_warnings

ARRAY_ENDING = ".npy"
"""Of files with one array, as numpy saves them."""

_ARRAY_START = b"\x93NUMPY"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _ORIENTATION, _SAMPLES, _PLANAR = 258, 274, 277, 284  # tags of TIFF
_APART = 2  # what the last may say
_MOST_SAMPLES = 4 * LARGEST  # as many as a photograph with opacity may have
_PADDED = "RGBX"  # how older versions of Pillow call RGB with a sample that they leave out


def is_array_file(file: IO[bytes]) -> bool:
    """Whether an open file begins as .npy files do."""
    return _peek(file, len(_ARRAY_START)) == _ARRAY_START


def read_array_file(file: IO[bytes]) -> npt.NDArray[Any]:
    """The array in an open .npy file. Raises ImageError for one of objects, which could run code, and for one whose
    header promises more than the file holds."""
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ImageError(f"a .npy file has version 1.0 or 2.0, got {version[0]}.{version[1]}. Save it with numpy.save")
    shape, _, dtype = read_header[version](file)
    if dtype.hasobject:
        raise ImageError("reading an array of Python objects could run code. Save an array of numbers")
    if len(shape) not in (2, 3):
        raise ImageError(f"an image array is (H, W) or (H, W, C), got {shape}. Save one image in a file")
    refuse_size(shape[1], shape[0])
    start = file.tell()
    held, promised = file.seek(0, os.SEEK_END) - start, int(np.prod(shape, dtype=object)) * dtype.itemsize
    if held < promised:
        raise ImageError(f"the file is cut off, with {held:,} of {promised:,} bytes. Copy it again")
    file.seek(0)
    array: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    return array


def has_page_per_channel(file: IO[bytes], reading: Reading) -> bool:
    """Whether an open file is a TIFF with a grey page for each channel of the network, as microscopes write them."""
    samples, _, _ = _read_tiff_facts(file)
    if samples != 1 or reading.channels in (None, 1, 3):  # pages of other files are images of their own
        return False
    try:
        with ignore_warnings(), Image.open(file, formats=["TIFF"]) as image:
            return int(getattr(image, "n_frames", 1)) == reading.channels
    except Exception:  # a damaged file: reading it says so
        return False
    finally:
        file.seek(0)


def read_pages(file: IO[bytes]) -> npt.NDArray[Any]:
    """The grey pages of an open TIFF file as channels (H, W, C). Raises ImageError."""
    with ignore_warnings(), Image.open(file, formats=["TIFF"]) as image:
        refuse_size(*image.size)
        count = int(getattr(image, "n_frames", 1))
        if image.width * image.height * count > _MOST_SAMPLES:
            raise ImageError(
                f"{count} pages of {image.width} x {image.height} px are more than {_MOST_SAMPLES:,} samples. Cut out "
                "a part first"
            )
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    if len({(page.shape, page.dtype) for page in pages}) > 1 or pages[0].ndim != 2:
        raise ImageError(f"its {len(pages)} pages are not of one size and kind, so they are no channels of one image")
    return np.stack(pages, -1)


def needs_tifffile(file: IO[bytes], reading: Reading) -> bool:
    """Whether an open file is a TIFF of which Pillow would read fewer samples, or fewer of their bits, than needed."""
    samples, bits, planar = _read_tiff_facts(file)
    if samples < 2:
        return False
    if bits == 16 and reading.white is not None:
        return True  # Pillow keeps 8 bits of colours
    if planar and (bits != 8 or samples == 2):
        return True  # of which Pillow makes noise, or nothing
    try:
        with ignore_warnings(), Image.open(file, formats=["TIFF"]) as image:
            return len(image.getbands()) - (image.mode == _PADDED) < samples
    except Exception:
        return samples != 3 or bits not in (8, 16)  # of these the number of bands is no reason to fail
    finally:
        file.seek(0)


def read_bands(file: IO[bytes]) -> npt.NDArray[Any]:
    """All samples (H, W, C) of the first image in an open TIFF file. Raises ImageError."""
    samples, bits, _ = _read_tiff_facts(file)
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            f"Pillow does not read {samples} bands of {bits} bits as they are here. Install the package tifffile: pip "
            "install 'vizcnn[tiff]'. Or give an array (H, W, C), also as a .npy file"
        ) from error
    with tifffile.TiffFile(file) as opened:
        page = opened.pages[0]
        refuse_size(page.imagewidth, page.imagelength)
        if page.imagewidth * page.imagelength * samples > _MOST_SAMPLES:
            raise ImageError(
                f"{samples} bands of {page.imagewidth} x {page.imagelength} px are more than {_MOST_SAMPLES:,} "
                "samples. Cut out a part first"
            )
        turned = page.tags.get(_ORIENTATION)
        if turned is not None and turned.value != 1:
            raise ImageError("its tag Orientation says that its bands lie turned. Save it upright")
        array: npt.NDArray[Any] = page.asarray()
        return np.moveaxis(array, 0, 2) if page.planarconfig == _APART and array.ndim == 3 else array


def _read_tiff_facts(file: IO[bytes]) -> tuple[int, int, bool]:
    """How many samples a pixel has in an open TIFF file, how many bits they have, and whether each band lies by itself;
    no samples for what is no TIFF."""
    if _peek(file, 4) not in _TIFF_STARTS:
        return 0, 0, False
    try:
        header = file.read(8)
        if header[2] == 43 or header[3] == 43:  # BigTIFF has a longer one
            header += file.read(8)
        directory = ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
        bits = directory.get(_BITS, (1,))
        return int(directory.get(_SAMPLES, 1)), int(bits[0]), directory.get(_PLANAR, 1) == _APART
    except Exception:  # a damaged file: Pillow says so when it reads it
        return 0, 0, False
    finally:
        file.seek(0)


def _peek(file: IO[bytes], count: int) -> bytes:
    file.seek(0)
    start = file.read(count)
    file.seek(0)
    return start
