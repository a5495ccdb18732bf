"""Results whose numbers are pictures: optimised ones in a grid, or photographs made over; both can be animated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.errors import ParameterError
from vizcnn.inputs.images import Photo
from vizcnn.inputs.records import save_options
from vizcnn.results.base import Provenance, Result
from vizcnn.results.drawing import draw_image, new_figure, shorten
from vizcnn.results.grid import ImageGrid
from vizcnn.results.photos import as_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Frames = npt.NDArray[np.uint8]
_RASTER = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SECONDS = 4.0  # how long an animation takes, before it stands still
_STILL = 1500  # ms for the last frame
_SIDE = 96  # px, the shortest side of a tile in an animation
_GAP = 2  # px between tiles


@dataclass(frozen=True)
class Optimised(ImageGrid):
    """Pictures made for targets, in panels of tiles.

    reached: float64 (K,), the targets' numbers for the pictures, in the order of the panels' tiles.
    frames: uint8 (F, K, H, W, C), the pictures on their way; F is 0 where none were kept.
    partial: after Ctrl-C; the pictures are as far as they got.
    """

    reached: npt.NDArray[np.float64]
    frames: Frames
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of an ImageGrid, `reached`, and `frames` where any were kept."""
        kept = {"frames": self.frames} if len(self.frames) else {}
        return super().arrays() | {"reached": self.reached} | kept

    def summary(self) -> dict[str, Any]:
        return super().summary() | {"reached": self.reached.tolist(), "partial": self.partial}

    def _write(self, file: Path, kind: str) -> None:
        if kind == ".gif":
            animate([_tile(frame) for frame in self.frames], file, self.provenance)
        else:
            super()._write(file, kind)


@dataclass(frozen=True)
class Scenery:
    """A picture that was made from photographs.

    image: float32 (H, W, C) in [0, 1].
    sources: the photographs that it was made from, each with the part it played, such as `style`; "" for one alone.
    values: the numbers that were optimised, by name, before and after.
    frames: uint8 (F, H, W, C), the picture in the making; F is 0 where none were kept.
    """

    image: npt.NDArray[np.float32]
    sources: tuple[tuple[str, Photo], ...]
    values: dict[str, tuple[float, float]]
    frames: Frames

    def summary(self) -> dict[str, Any]:
        values = {name: {"before": before, "after": after} for name, (before, after) in self.values.items()}
        return {"size": list(self.image.shape[:2]), "values": values}

    def describe(self) -> str:
        said = "; ".join(f"{name} {before:.3g} -> {after:.3g}" for name, (before, after) in self.values.items())
        return f"{self.image.shape[1]} x {self.image.shape[0]} px: {said}"


@dataclass(frozen=True)
class Pictures(Result):
    """Photographs made over. Saved as .png or .jpg they are the pictures themselves, pixel by pixel (several side by
    side), with the provenance inside; the other endings draw each beside what it was made from.

    scenes: a picture per photograph. partial: after Ctrl-C; the pictures are as far as they got.
    """

    parts: ClassVar[tuple[type, ...]] = (Scenery,)

    scenes: tuple[Scenery, ...]
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """float32 (H, W, C) for each picture: `image`, then `image-1` and so on. uint8 (F, H, W, C) where frames were
        kept: `frames`, `frames-1` and so on."""
        ends = ["", *(f"-{i}" for i in range(1, len(self.scenes)))]
        images: dict[str, npt.NDArray[Any]] = {f"image{e}": s.image for e, s in zip(ends, self.scenes, strict=True)}
        return images | {f"frames{e}": s.frames for e, s in zip(ends, self.scenes, strict=True) if len(s.frames)}

    def summary(self) -> dict[str, Any]:
        return {"pictures": [scene.summary() for scene in self.scenes], "partial": self.partial}

    def describe(self) -> str:
        return "\n".join(scene.describe() + " (stopped early)" * self.partial for scene in self.scenes)

    def pil(self) -> Image.Image:
        """The pictures alone."""
        return _to_pil(_join([as_bytes(scene.image) for scene in self.scenes]))

    def plot(self, ax: Axes | None = None, *, picture: int = 0) -> Axes:
        """Draw one of the pictures, without what it was made from, on `ax` or on a new figure. Returns the Axes."""
        scene = self.scenes[picture]
        ax = new_figure(4, _measure_height(replace(scene, sources=()))).add_subplot() if ax is None else ax
        _draw_photo(ax, "result", Photo(scene.image))
        return ax

    def figure(self) -> Figure:
        """A row per picture: what it was made from, and the picture."""
        columns = len(self.scenes[0].sources) + 1
        figure = new_figure(4 * columns, sum(map(_measure_height, self.scenes)) + 0.4)
        axes = figure.subplots(len(self.scenes), columns, squeeze=False)
        for i, scene in enumerate(self.scenes):
            for ax, (part, photo) in zip(axes[i], scene.sources, strict=False):
                _draw_photo(ax, f"{part}: {photo.name}" if part else photo.name, photo)
            self.plot(axes[i, -1], picture=i)
        figure.supxlabel(self.provenance.line(), fontsize=6, color="0.4")
        return figure

    def _write(self, file: Path, kind: str) -> None:
        if kind in _RASTER:
            self._write_pixels(file, kind)
        elif kind == ".gif":
            films = [scene.frames for scene in self.scenes]
            animate([_join(list(frames)) for frames in zip(*films, strict=False)], file, self.provenance)
        else:
            super()._write(file, kind)

    def _write_pixels(self, file: Path, kind: str) -> None:
        quality = {} if kind == ".png" else {"quality": 95}
        self.pil().save(file, _RASTER[kind], **quality, **save_options(kind[1:], asdict(self.provenance)))


def _join(pictures: list[Frames]) -> Frames:
    """Pictures (h, w, C) side by side, white below the lower ones."""
    tallest = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(p, ((0, tallest - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, 1)


def animate(frames: list[Frames], file: Path, provenance: Provenance) -> None:
    """Write frames (H, W, C) as an animated GIF that ends on the last one. Raises ParameterError without frames."""
    if not frames:
        raise ParameterError("an animation needs frames, and none were kept. Ask for them: frames=24, or --frames 24")
    first, *rest = (_to_pil(frame) for frame in frames)
    each = int(1000 * _SECONDS / len(frames))
    durations = [each] * len(rest) + [_STILL]
    record = save_options("gif", asdict(provenance))
    first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, **record)


def _to_pil(pixels: Frames) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _tile(tiles: Frames) -> Frames:
    """Tiles (K, H, W, C) in one picture, nearly square, enlarged where they are small."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    larger = max(1, -(-_SIDE // min(tiles.shape[1:3])))
    big = tiles.repeat(larger, 1).repeat(larger, 2)
    missing = -len(big) % columns
    padded = np.pad(big, ((0, missing), (_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(padded[i : i + columns]), 1) for i in range(0, len(padded), columns)]
    return cast(Frames, np.concatenate(rows, 0))


def _measure_height(scene: Scenery) -> float:
    """How high, in inches, a row with the picture and what it was made from is to be."""
    sizes = [scene.image.shape[:2], *(photo.size for _, photo in scene.sources)]
    return float(min(4 * max(height / width for height, width in sizes), 6) + 0.4)


def _draw_photo(ax: Axes, title: str, photo: Photo) -> None:
    draw_image(ax, photo.pixels)
    ax.set_title(shorten(title), fontsize=9)
