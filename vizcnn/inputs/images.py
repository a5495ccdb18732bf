"""Images: whatever a person calls one is read into the same form, pixels (H, W, C)."""

from __future__ import annotations

import errno
import io
import logging
import os
import posixpath
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vizcnn.errors import ImageError, VizcnnWarning, describe_address, did_you_mean
from vizcnn.inputs.bands import (
    ARRAY_ENDING,
    has_page_per_channel,
    is_array_file,
    needs_tifffile,
    read_array_file,
    read_bands,
    read_pages,
)
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.pixels import LARGEST, decode, decode_array
from vizcnn.inputs.reading import PLAIN, Reading
from vizcnn.inputs.records import provenance_in
from vizcnn.process import ignore_warnings

FORMATS = (
    *("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000"),
    *("PPM", "QOI", "ICO", "PSD", "SGI", "SUN", "PCX", "DIB", "TGA"),
)
"""The formats that are read, by Pillow's names, in the order in which they are tried: raster formats that are decoded
in this process. EPS, WMF and others are left out: Pillow starts other programs for them, which no file may do.
HEIF needs the package pillow-heif; TGA comes last, since nothing at the start of a file marks it."""

_HEIF_ENDINGS = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
"""Known without the package too: a folder of such photographs is not empty, and what they need is said."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what it logs of bad files

_NO_IMAGES = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that operating systems and their tools add; names that begin with a dot are hidden as well."""

SAMPLES = {  # name: (package that ships it, path inside the package)
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


def open_photo(
    source: Any, *, background: str = "white", channels: int | None = None, white: float | None = None
) -> Photo:
    """Read one image.

    source: a path, `sample:NAME`, a file that is open for reading bytes, such as `io.BytesIO`, a Pillow image, or an
        array (H, W) or (H, W, C) of uint8, uint16 or floats in [0, 1]. A file of the format .npy holds such an array.
    background: the colour (any name Pillow knows) that shows through transparent parts.
    channels: of the network that the image is for. Four samples of a pixel are RGB and opacity, unless this is 4.
    white: the value of white in images of more than 8 bits per sample, such as 4095; values above it are refused.

    A Model's probes read images as its input contract says, so that this function is rarely needed. EXIF orientation is
    applied; of an animation the first frame is used; depths up to 16 bits are scaled to [0, 1], by the bits that a file
    says it has; CMYK and palettes become RGB; greyscale stays grey. Warns where samples of 16 bits seem to hold numbers
    of fewer. HEIC, which phones save, needs the extra `heic`; TIFF files of more bands than Pillow reads need the extra
    `tiff`. Raises ImageError for what is not such an image, such as a file in a format that is not among FORMATS, or of
    more than 89,478,485 px, or a pipe, or an address of the web.

        >>> import vizcnn
        >>> vizcnn.open_photo("sample:grace_hopper").pixels.shape
        (600, 512, 3)
    """
    return read_source(source, Reading(channels=channels, white=white, background=background))


def read_source(source: Any, reading: Reading) -> Photo:
    """Read one image, as `open_photo` does, in a way that a network's input contract may ask for."""
    if isinstance(source, Photo):
        source.check_whole()
        return source
    if isinstance(source, str | Path):
        name = str(source).removeprefix("sample:")
        if name in DRAWN and name != str(source):
            return Photo(DRAWN[name]().copy(), name)
        path = _find_file(source)
        with raise_image_errors(path):
            file = open_file(path)
        with file:
            return read_photo(file, path, reading)
    if is_open_file(source):
        return read_photo(_read_whole(source), Path(name_open_file(source)), reading)
    if isinstance(source, Image.Image):
        return _decode(source, Path(getattr(source, "filename", "") or "image"), reading, float("inf"))
    if isinstance(source, np.ndarray):
        pixels, warning = decode_array(source, reading)
        _warn(warning)
        return Photo(pixels)
    raise ImageError(f"an image is a path, an open file, a Pillow image or an array, got {type(source).__name__}")


def image_files(source: str | Path) -> list[str]:
    """The image files that a path stands for: the file itself, or those directly inside a folder, sorted by name.

    In a folder, pictures that vizcnn has saved are skipped, with a warning that says how many: they carry their
    provenance, see `vizcnn.inputs.provenance_in`. A file that is named itself is always taken.
    Raises ImageError for a folder without images.
    """
    if not str(source):
        raise ImageError("the image's name is empty. Is a variable of your shell not set?")
    if str(source).startswith("sample:") or not os.path.isdir(source):
        return [str(source)]
    endings = list_image_endings()
    with raise_image_errors(Path(source)), os.scandir(source) as entries:
        names = [entry.name for entry in entries if is_image(entry.name, endings) and _is_file(entry)]
    files = sorted(str(Path(source) / name) for name in names)
    found = [file for file in files if provenance_in(file) is None]
    skipped = len(files) - len(found)
    if not found:
        but = f" but {_count_own(skipped)}" if skipped else ""
        raise ImageError(
            f"folder {to_printable(source)} holds no images{but}. Name a file, or a folder with image files directly "
            "inside; in Python, vizcnn.inputs.dataset(folder) reads sub-folders too"
        )
    warn_of_skipped(skipped, source)
    return found


def warn_of_skipped(count: int, folder: str | Path) -> None:
    """Say how many pictures of ours in a folder are not looked at."""
    if count:
        _warn(f"{_count_own(count)} in {to_printable(folder)} skipped. To look at one all the same, name the file")


def _count_own(count: int) -> str:
    return f"{count} pictures that vizcnn has made" if count > 1 else "1 picture that vizcnn has made"


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file. A link that leads nowhere counts as one, so that reading it reports a lost image."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def is_image(path: str, endings: frozenset[str]) -> bool:
    """Whether a path has the ending of an image (one of `endings`) and no hidden part."""
    return posixpath.splitext(path)[1].lower() in endings and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether a path has a part that systems hide or add: `.ipynb_checkpoints/`, `._photo.jpg`, `__MACOSX/`."""
    return any(part.startswith(".") or part in _NO_IMAGES for part in path.split("/"))


def list_image_endings() -> frozenset[str]:
    """The endings of file names, such as `.jpg`, of the formats that are read."""
    known = Image.registered_extensions().items()
    return _HEIF_ENDINGS.union([ARRAY_ENDING], (ending for ending, kind in known if kind in FORMATS))


def _draw_noise() -> npt.NDArray[np.float32]:
    """Grey noise of little contrast, (224, 224, 3): what a dream can begin with."""
    pixels: npt.NDArray[np.float32] = np.random.default_rng(0).normal(0.5, 0.08, (224, 224, 3)).astype(np.float32)
    return pixels.clip(0, 1)


@cache  # a quarter of a second
def _draw_mosaic() -> npt.NDArray[np.float32]:
    """Coloured tiles with dark joints, (256, 256, 3): a style to transfer."""
    random = np.random.default_rng(3)
    centres, colours = random.uniform(0, 256, (220, 2)), random.uniform(0.15, 1, (220, 3)).astype(np.float32)
    rows, columns = np.mgrid[0:256, 0:256]
    apart = np.hypot(rows[..., None] - centres[:, 0], columns[..., None] - centres[:, 1])  # (256, 256, tiles)
    nearest = np.sort(apart, 2)
    joint = np.clip((nearest[..., 1] - nearest[..., 0]) / 3, 0.1, 1)
    pixels: npt.NDArray[np.float32] = (colours[apart.argmin(2)] * joint[..., None]).astype(np.float32)
    return pixels


DRAWN: dict[str, Callable[[], npt.NDArray[np.float32]]] = {"mosaic": _draw_mosaic, "noise": _draw_noise}
"""The samples that are computed, by name."""


def _find_file(source: str | Path) -> Path:
    """The file that a path or `sample:NAME` stands for. Raises ImageError for an unknown sample, or an address."""
    refuse_address(source)
    if not str(source).startswith("sample:"):
        return Path(source)
    name = str(source).removeprefix("sample:")
    if name not in SAMPLES:
        known = sorted([*SAMPLES, *DRAWN])
        raise ImageError(f"no sample named {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}")
    package, inside = SAMPLES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImageError(f"sample {name!r} ships with the package {package!r}, which is not installed")
    return Path(spec.origin).parent / inside


def refuse_address(source: str | Path) -> None:
    """Raise ImageError where a name is an address of the web."""
    if address := describe_address(source):
        raise ImageError(to_printable(address))


def is_open_file(source: Any) -> bool:
    """Whether an object is a file that was opened, or one in memory."""
    return hasattr(source, "read") and hasattr(source, "seekable")


def name_open_file(file: Any) -> str:
    """The name of an open file without its folders; `image` for one in memory."""
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) and name else "image"


def _read_whole(file: Any) -> IO[bytes]:
    """What an open file holds, whatever has been read of it; of a pipe, what is still to come. The file stays open."""
    name = name_open_file(file)
    if isinstance(file, io.TextIOBase):
        raise ImageError(f"the file {to_printable(name)} is open as text. Open it with mode 'rb'")
    with raise_image_errors(Path(name)):
        if file.seekable():
            file.seek(0)
        return io.BytesIO(file.read())


def open_file(path: Path) -> IO[bytes]:
    """Open a file to read it. Pipes, sockets and devices are refused, since reading them may wait for ever."""
    if "\0" in str(path):  # of which the system says something else
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise ImageError(f"{to_printable(path)} is {kind}. Save what comes from it in a file, and name that")
    return path.open("rb")


def read_photo(file: IO[bytes], path: Path, reading: Reading = PLAIN) -> Photo:
    """Read the image in an open file, which errors call `path`. Raises ImageError as `open_photo` does."""
    if is_array_file(file):
        return _decode_samples(lambda: read_array_file(file), path, reading)
    all_samples = replace(reading, channels=4)  # the last of four may be no opacity
    if has_page_per_channel(file, reading):
        return _decode_samples(lambda: read_pages(file), path, all_samples)
    if needs_tifffile(file, reading):
        return _decode_samples(lambda: read_bands(file), path, all_samples)
    with raise_image_errors(path):
        image = _identify(file, path)
    with image:
        return _decode(image, path, reading, LARGEST)


def _decode(image: Image.Image, path: Path, reading: Reading, most: float) -> Photo:
    with raise_image_errors(path):
        pixels, warning = decode(image, reading, most)
    _warn(warning)
    return Photo(pixels, _name_photo(path))


def _decode_samples(read: Callable[[], npt.NDArray[Any]], path: Path, reading: Reading) -> Photo:
    """The photograph of an array that is read from a file."""
    with raise_image_errors(path):
        pixels, warning = decode_array(read(), reading)
    _warn(warning)
    return Photo(pixels, _name_photo(path))


def _name_photo(path: Path) -> str:
    return path.name.encode("utf-8", "replace").decode()


def _warn(warning: str) -> None:
    if warning:
        warnings.warn(warning, VizcnnWarning, stacklevel=2)


def _identify(file: IO[bytes], path: Path) -> Image.Image:
    Image.init()
    try:
        return Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(16)
    if not start:
        raise ImageError(f"{to_printable(path)} is empty")
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        _register_heif(path)
        file.seek(0)
        return _identify(file, path)
    known = next((kind for kind, (_, accept) in Image.OPEN.items() if _accepts(accept, start)), None)
    if known is None or (known == "CUR" and path.suffix.lower() != ".cur"):  # which damaged TGA files look like
        raise ImageError(f"{to_printable(path)} is not an image in a format that Pillow reads")
    if known in FORMATS:
        raise ImageError(
            f"{to_printable(path)} begins as {known} does, but is damaged, or of a kind that Pillow does not read"
        )
    raise ImageError(f"{to_printable(path)} is {known}, a format that is not read here. Save the image as PNG")


def _register_heif(path: Path) -> None:
    """Teach Pillow HEIF. Raises ImageError, about the file that needs it, where the package for it is missing."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(
            f"{to_printable(path)} is HEIF, as phones save photographs, and reading it needs the package pillow-heif: "
            "pip install 'vizcnn[heic]'. Or save the photograph as JPEG"
        ) from error
    register_heif_opener()


def _accepts(accept: Callable[[bytes], bool | str] | None, start: bytes) -> bool:
    """Whether Pillow takes a file with this start for one of a format; accept: Pillow's test for the format."""
    try:
        return accept is not None and bool(accept(start))
    except Exception:  # some look for more bytes than there are
        return False


@contextmanager
def raise_image_errors(path: Path) -> Iterator[None]:
    """Turn what Pillow may raise on a bad file into one clear ImageError."""
    try:
        with ignore_warnings():  # Pillow's, of odd metadata and of size; size is checked by us
            yield
    except ImageError as error:
        if to_printable(path) not in str(error):
            error.add_context(to_printable(path))
        raise
    except Exception as error:
        named = getattr(error, "filename", None)  # more exact, such as the archive that a file lies in
        raise ImageError(
            f"{to_printable(named if isinstance(named, str) else path)} {describe_problem(error)}"
        ) from error


def describe_problem(error: Exception) -> str:
    """What is wrong with a file, as words that follow its name."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, PermissionError):
        return "may not be read: permission denied"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "cannot be opened: too many files are open. Close some, or raise the limit (ulimit -n)"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {LARGEST:,} px. Make it smaller first"
    if isinstance(error, MemoryError):
        return "needs more memory than there is. Make it smaller first"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read"
    if isinstance(error, NotImplementedError):
        return f"is of a kind that cannot be read here ({to_printable(error)})"
    return f"cannot be decoded, it is damaged or truncated ({to_printable(error)})"


def to_printable(name: object) -> str:
    """A file's name, or a message, as one line of text, with control and undecodable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def expand_sources(images: Any) -> Iterator[Any]:
    """Each single image that `images` stands for: itself, the members of a list, the files of a folder."""
    if isinstance(images, list | tuple):
        for image in images:
            yield from expand_sources(image)
    elif isinstance(images, str | Path):
        yield from image_files(images)
    else:
        yield images
