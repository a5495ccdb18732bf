"""Results whose numbers are pictures: optimised ones in a grid, or photographs made over; both can be animated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.errors import ParameterError
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.records import save_options
from vizcnn.results.base import Result
from vizcnn.results.drawing import check_page, draw_caption, draw_photo, fit_text, measure_axes, new_figure, split_rows
from vizcnn.results.grid import ImageGrid
from vizcnn.results.photos import as_bytes
from vizcnn.results.records import make_even
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Frames = npt.NDArray[np.uint8]
_RASTER = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SECONDS = 4.0  # how long an animation takes, before it stands still
_STILL = 1500  # ms for the last frame
_SIDE = 96  # px, the shortest side of a tile in an animation
_GAP = 2  # px between tiles
_WIDEST, _TITLE, _CAPTION = 4.5, 0.4, 0.4  # inches: of a photograph, over it, below all
_BESIDE = 0.1  # inches, between titles


@dataclass(frozen=True)
class Optimised(ImageGrid):
    """Pictures made for targets, in panels of tiles.

    reached: float64 (K,), the targets' numbers for the pictures, in the order of the panels' tiles.
    frames: uint8 (F, K, H, W, C), the pictures on their way; F is 0 where none were kept.
    partial: after Ctrl-C; the pictures are as far as they got.
    """

    reached: npt.NDArray[np.float64]
    frames: Frames

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of an ImageGrid, `reached`, and `frames` where any were kept."""
        kept = {"frames": self.frames} if len(self.frames) else {}
        return super().arrays() | {"reached": self.reached} | kept

    def summary(self) -> dict[str, Any]:
        return super().summary() | {"reached": self.reached.tolist()}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Those of an ImageGrid with what each picture reached; None for parts of real images that stand beside it."""
        made = [i == 0 for row in summary["rows"] for i, panel in enumerate(row["panels"]) for _ in panel["tiles"]]
        reached = iter(summary["reached"])
        tiles = zip(super().records_of(summary), made, strict=True)
        return make_even(tile | {"reached": next(reached) if is_made else None} for tile, is_made in tiles)

    def _write(self, file: Path, kind: str) -> None:
        if kind == ".gif":
            animate([_tile(frame) for frame in self.frames], file, self._origin())
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
        sources = {part or "image": photo.name for part, photo in self.sources}
        return {"sources": sources, "size": list(self.image.shape[:2]), "values": values}

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

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each picture: what it was made from, its size in px, and what was optimised, before and after."""
        return make_even(
            {
                **picture.get("sources", {}),  # which a .json saved before there were records lacks
                "height": picture["size"][0],
                "width": picture["size"][1],
                **{f"{name} {when}": y for name, values in picture["values"].items() for when, y in values.items()},
            }
            for picture in summary["pictures"]
        )

    def describe(self) -> str:
        return "\n".join(scene.describe() + " (stopped early)" * self.partial for scene in self.scenes)

    def pil(self) -> Image.Image:
        """The pictures alone."""
        return _to_pil(_join([as_bytes(scene.image) for scene in self.scenes]))

    def plot(self, ax: Axes | None = None, *, picture: int = 0) -> Axes:
        """Draw one of the pictures, without what it was made from, on `ax` or on a new figure. Returns the Axes."""
        scene = self.scenes[picture]
        if ax is None:
            side = _choose_side(1)
            ax = new_figure(side, _measure_height(replace(scene, sources=()), side)).add_subplot()
        _draw_titled(ax, f"result of {self.provenance.probe}", Photo(scene.image), measure_axes(ax)[0])
        return ax

    @property
    def pages(self) -> int:
        return len(self._split())

    def figure(self, page: int = 1) -> Figure:
        """A row per picture: what it was made from, and the picture. A page holds as many rows as its height allows."""
        check_page(page, self.pages)
        shown = self._split()[page - 1]
        columns = len(self.scenes[0].sources) + 1
        side = _choose_side(columns)
        heights = [_measure_height(self.scenes[i], side) for i in shown]
        figure = new_figure(side * columns, sum(heights) + _CAPTION)
        axes = figure.subplots(len(shown), columns, squeeze=False, height_ratios=heights)
        for row, i in zip(axes, shown, strict=True):
            for ax, (part, photo) in zip(row, self.scenes[i].sources, strict=False):
                _draw_titled(ax, f"{part}: {photo.name}" if part else photo.name, photo, side - _BESIDE)
            _draw_titled(row[-1], f"result of {self.provenance.probe}", Photo(self.scenes[i].image), side - _BESIDE)
        draw_caption(figure, self.small_print, page, self.pages)
        return figure

    def _split(self) -> list[range]:
        """The numbers of the pictures on each page."""
        side = _choose_side(len(self.scenes[0].sources) + 1)
        return split_rows([_measure_height(scene, side) for scene in self.scenes], _CAPTION)

    def _write(self, file: Path, kind: str) -> None:
        if kind in _RASTER:
            self._write_pixels(file, kind)
        elif kind == ".gif":
            films = [scene.frames for scene in self.scenes]
            animate([_join(list(frames)) for frames in zip(*films, strict=False)], file, self._origin())
        else:
            super()._write(file, kind)

    def _write_pixels(self, file: Path, kind: str) -> None:
        quality = {} if kind == ".png" else {"quality": 95}
        self.pil().save(file, _RASTER[kind], **quality, **save_options(kind[1:], self._origin()))


def _join(pictures: list[Frames]) -> Frames:
    """Pictures (h, w, C) side by side, white below the lower ones."""
    tallest = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(p, ((0, tallest - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, 1)


def animate(frames: list[Frames], file: Path, origin: Mapping[str, Any]) -> None:
    """Write frames (H, W, C) as an animated GIF that ends on the last one. origin: what it says of its making.

    Raises ParameterError without frames."""
    if not frames:
        raise ParameterError("an animation needs frames, and none were kept. Ask for them: frames=24, or --frames 24")
    first, *rest = (_to_pil(frame) for frame in frames)
    each = int(1000 * _SECONDS / len(frames))
    durations = [each] * len(rest) + [_STILL]
    record = save_options("gif", origin)
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


def _choose_side(columns: int) -> float:
    """How wide each of so many pictures beside each other is, in inches."""
    return min(_WIDEST, current_style().width / columns)


def _measure_height(scene: Scenery, side: float) -> float:
    """How high, in inches, a row is with the picture and what it was made from, each so wide."""
    sizes = [scene.image.shape[:2], *(photo.size for _, photo in scene.sources)]
    return float(min(side * max(height / width for height, width in sizes), 1.5 * side) + _TITLE)


def _draw_titled(ax: Axes, title: str, photo: Photo, room: float) -> None:
    """Draw a photograph under a title of at most `room` inches."""
    draw_photo(ax, photo)
    size = current_style().title
    ax.set_title(fit_text(title, room, size), fontsize=size)
