"""Everything a person may call an image, brought to one form: RGB or grey in [0, 1]."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from vizcnn.errors import ImageError, did_you_mean

LARGEST = 89_478_485
"""Most pixels accepted in one image: Pillow's own bound against decompression bombs."""

SAMPLES = {  # name: (package that ships it, path inside the package)
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


@dataclass(frozen=True)
class Photo:
    """An image as the person knows it, before any network's resizing.

    pixels: float32 (H, W, 3) RGB or (H, W, 1) grey, in [0, 1].
    """

    pixels: npt.NDArray[np.float32]
    name: str = "image"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def sha256(self) -> str:
        """Digest of the decoded pixels, for provenance."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()


def open_photo(source: Any, *, background: str = "white") -> Photo:
    """Read one image.

    source: a path, `sample:NAME`, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
        uint16 or floats in [0, 1].
    background: the colour (any name Pillow knows) that shows through transparent parts.

    EXIF orientation is applied; of an animation the first frame is used; 16-bit depth is scaled to [0, 1];
    CMYK and palettes become RGB; greyscale stays grey. Raises ImageError for anything that is not such an image.
    """
    if isinstance(source, Photo):
        return source
    if str(source).removeprefix("sample:") in DRAWN and str(source).startswith("sample:"):
        name = str(source).removeprefix("sample:")
        return Photo(DRAWN[name](), name)
    if isinstance(source, str | Path):
        return _from_file(_path(source), background)
    if isinstance(source, Image.Image):
        path = Path(getattr(source, "filename", "") or "image")
        with reading(path):
            return Photo(_pixels(source, background), path.name)
    if isinstance(source, np.ndarray):
        return _from_array(source, background)
    raise ImageError(f"an image is a path, a Pillow image or an array, got {type(source).__name__}")


def image_files(source: str | Path) -> list[str]:
    """The image files a path stands for: itself, or those directly inside a folder, by name."""
    if not str(source):
        raise ImageError("the image's name is empty. Is a variable of your shell not set?")
    if str(source).startswith("sample:") or not Path(source).is_dir():
        return [str(source)]
    known = image_kinds()
    found = sorted(str(p) for p in Path(source).iterdir() if p.suffix.lower() in known and p.is_file())
    if not found:
        raise ImageError(f"folder {source} holds no images. Name a file, or a folder with image files directly inside")
    return found


def image_kinds() -> frozenset[str]:
    """The endings of file names, such as `.jpg`, that promise an image which Pillow can read."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def colour(text: str) -> tuple[float, float, float]:
    """RGB in [0, 1] of a colour as Pillow names it: `grey`, `#7f7f7f`, `rgb(10%,20%,30%)`. Raises ValueError."""
    red, green, blue = ImageColor.getcolor(text, "RGB")  # type: ignore[misc]
    return red / 255, green / 255, blue / 255


def grey(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Luma (ITU-R BT.601) of an image: (H, W, 3) to (H, W, 1); grey images pass through."""
    if pixels.shape[2] == 1:
        return pixels
    return pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)  # (H, W, 1)


def _noise() -> npt.NDArray[np.float32]:
    """Grey noise of little contrast, (224, 224, 3): what a dream can begin with."""
    pixels: npt.NDArray[np.float32] = np.random.default_rng(0).normal(0.5, 0.08, (224, 224, 3)).astype(np.float32)
    return pixels.clip(0, 1)


def _mosaic() -> npt.NDArray[np.float32]:
    """Coloured tiles with dark joints, (256, 256, 3): a style to transfer."""
    random = np.random.default_rng(3)
    centres, colours = random.uniform(0, 256, (220, 2)), random.uniform(0.15, 1, (220, 3)).astype(np.float32)
    rows, columns = np.mgrid[0:256, 0:256]
    apart = np.hypot(rows[..., None] - centres[:, 0], columns[..., None] - centres[:, 1])  # (256, 256, tiles)
    nearest = np.sort(apart, 2)
    joint = np.clip((nearest[..., 1] - nearest[..., 0]) / 3, 0.1, 1)
    pixels: npt.NDArray[np.float32] = (colours[apart.argmin(2)] * joint[..., None]).astype(np.float32)
    return pixels


DRAWN: dict[str, Callable[[], npt.NDArray[np.float32]]] = {"mosaic": _mosaic, "noise": _noise}
"""Samples that are drawn when they are asked for."""


def _path(source: str | Path) -> Path:
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


def _from_file(path: Path, background: str) -> Photo:
    with reading(path), path.open("rb") as file:
        if path.is_file() and path.stat().st_size == 0:
            raise ImageError(f"{path} is empty")
        return photo_in(file, path, background=background)


def photo_in(file: IO[bytes], path: Path, *, background: str = "white") -> Photo:
    """The image in an open file; `path` is what it is called. Raises ImageError as `open_photo` does."""
    with reading(path), Image.open(file) as image:
        if image.width * image.height > LARGEST:
            raise ImageError(
                f"{path} has {image.width} x {image.height} px, more than {LARGEST:,}. Make it smaller first"
            )
        return Photo(_pixels(image, background), path.name.encode("utf-8", "replace").decode())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Pillow may raise on a bad file into one clear ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size; size is checked by us
            yield
    except ImageError as error:
        if str(path) not in str(error):
            error.within(str(path))
        raise
    except Exception as error:
        raise ImageError(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder"
    if isinstance(error, PermissionError):
        return f"{path} may not be read: permission denied"
    if isinstance(error, UnidentifiedImageError):
        return f"{path} is not an image in a format that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"{path} has more than {LARGEST:,} px. Make it smaller first"
    return f"{path} cannot be decoded, it is damaged or truncated ({error})"


def _pixels(image: Image.Image, background: str) -> npt.NDArray[np.float32]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _deep(upright)
    if upright.has_transparency_data:
        upright = _opaque(upright.convert("RGBA"), background)
    flat = upright.convert("L" if upright.mode in ("1", "L") else "RGB")
    return _stacked(np.asarray(flat, np.float32) / 255)


def _deep(image: Image.Image) -> npt.NDArray[np.float32]:
    """Greyscale of more than 8 bits, which `convert("RGB")` would clip to white."""
    values = np.asarray(image).astype(np.float64)  # (H, W)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise ImageError(
            f"a {image.mode}-mode image must hold values in 0..{top:g}, got {values.min():g}..{values.max():g}. "
            "Scale it and pass it as an array"
        )
    return _stacked(values / top)


def _opaque(image: Image.Image, background: str) -> Image.Image:
    ground = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(ground, image).convert("RGB")


def _from_array(array: npt.NDArray[Any], background: str) -> Photo:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        raise ImageError(
            f"an image array is (H, W) or (H, W, 1 | 3 | 4), got {array.shape}. A batch is a list of images"
        )
    values = _stacked(_unit_range(array))
    if values.shape[2] == 4:
        alpha = values[:, :, 3:]
        values = values[:, :, :3] * alpha + np.array(colour(background), np.float32) * (1 - alpha)
    return Photo(values)


def _unit_range(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if array.dtype in (np.uint8, np.uint16):
        return array / float(np.iinfo(array.dtype).max)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"an image array is uint8, uint16 or floats in [0, 1], got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ImageError(
            f"floats of an image lie in [0, 1], got {array.min():g}..{array.max():g}. Divide by the maximum"
        )
    return array.astype(np.float64)


def _stacked(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values if values.ndim == 3 else values[:, :, None], np.float32)  # (H, W, C)


def each_source(images: Any) -> Iterator[Any]:
    """The single images that `images` stands for: itself, the members of a list, the files of a folder."""
    if isinstance(images, list | tuple):
        for image in images:
            yield from each_source(image)
    elif isinstance(images, str | Path):
        yield from image_files(images)
    else:
        yield images
