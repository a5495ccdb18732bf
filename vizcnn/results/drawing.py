"""What the pictures of several results share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError, escape_invisible
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, to_floats
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure that pyplot knows nothing of. layout: None where everything is placed by its drawer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def check_page(page: int, pages: int) -> None:
    """Raise ParameterError for a page that a result does not have."""
    if not 1 <= page <= pages:
        raise ParameterError(f"the picture has pages 1 to {pages}, got {page}")


def split_rows(heights: Sequence[float], rest: float) -> list[range]:
    """The numbers of the rows on each page: as many as its height allows, at least one.

    heights: of the rows, in inches. rest: what else a page needs."""
    room, pages, start, taken = current_style().height - rest, list[range](), 0, 0.0
    for i, height in enumerate(heights):
        if i > start and taken + height > room:
            pages.append(range(start, i))
            start, taken = i, 0.0
        taken += height
    return [*pages, range(start, len(heights))]


def draw_caption(figure: Figure, line: str, page: int = 1, pages: int = 1) -> None:
    """Write the small print below a figure: the line of provenance, where the style has one, and which page it is."""
    wrapped, size = wrap_caption(line, figure.get_figwidth() - 0.2, page, pages)
    if wrapped:
        figure.supxlabel("\n".join(wrapped), fontsize=size, color=current_style().muted)


def wrap_caption(line: str, inches: float, page: int = 1, pages: int = 1) -> tuple[list[str], float]:
    """The lines of the small print of this width, and the size of their letters in points."""
    style = current_style()
    following = f"figure(page={page + 1}) draws the next, " if page < pages else ""
    size, which = max(style.small - 1, 6.0), f"page {page} of {pages}: {following}.pdf and .html hold all"
    origin = wrap_text(line, inches, size, most=_LONGEST) if style.caption else []
    return [*origin, *(wrap_text(which, inches, size) if pages > 1 else [])], size


_LONGEST = 3  # lines of provenance below a picture: files hold all of it
_INCH = 72  # points
_HINTED = 1.04  # small letters that are set on a grid of px are by up to so much wider than their outlines
_WIDE = 0.45  # of an em: by how much a letter of full width may be wider than what is measured for it


@lru_cache(10_000)
def measure_text(text: str, points: float, weight: str = "normal") -> float:
    """How wide a line of text is, in inches, or its widest line; a little too much where another font is due."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points, weight=weight)
    widths = [0.0]
    for line in escape_invisible(text).replace("\t", " ").split("\n"):
        plain = "".join(each if each.isascii() or each == "…" else "M" for each in line)
        wide = sum(east_asian_width(each) in "WF" for each in line)
        width, _, _ = text_to_path.get_text_width_height_descent(plain, font, ismath=False)
        widths.append((_HINTED * width + _WIDE * points * wide) / _INCH)
    return max(widths)


def wrap_text(text: str, inches: float, points: float, weight: str = "normal", *, most: int | None = None) -> list[str]:
    """The text in lines of at most this width; words that are too long for a line are broken. No line for no text.

    most: how many lines there may be; the last one then loses its middle."""
    lines = [line for part in text.split("\n") for line in _wrap_line(part, inches, points, weight)]
    if most is None or len(lines) <= most:
        return lines
    return [*lines[: most - 1], fit_text(" ".join(lines[most - 1 :]), inches, points, weight)]


def _wrap_line(text: str, inches: float, points: float, weight: str) -> list[str]:
    lines, line = list[str](), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if measure_text(longer, points, weight) <= inches:
            line = longer
            continue
        if line:
            lines.append(line)
        while measure_text(word, points, weight) > inches and len(word) > 1:
            kept = _count_fitting(word, inches, points, weight)
            lines.append(word[:kept])
            word = word[kept:]
        line = word
    return [*lines, line] if line else lines


def _count_fitting(word: str, inches: float, points: float, weight: str) -> int:
    """How many letters of a word fit into this width, at least one."""
    low, high = 1, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure_text(word[:middle], points, weight) <= inches else (low, middle - 1)
    return low


def fit_text(text: str, inches: float, points: float, weight: str = "normal") -> str:
    """The text in one line where it fits into this width; else with its middle left out."""
    text = text.replace("\n", " ")
    if measure_text(text, points, weight) <= inches:
        return text
    low, high = 0, len(text) - 1  # letters that are kept
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure_text(_cut(text, middle), points, weight) <= inches else (low, middle - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    """The text with only so many letters of its ends, and a sign for the rest."""
    end = kept // 2
    return f"{text[: kept - end]}…{text[len(text) - end :]}"


def measure_axes(ax: Axes) -> tuple[float, float]:
    """The width and height of axes in inches, where no layout moves them before they are drawn."""
    place, dpi = ax.get_window_extent(), ax.figure.dpi
    return place.width / dpi, place.height / dpi


def lay_out(figure: Figure, dpi: int) -> None:
    """Find the places of everything in a figure, for a raster picture of so many dots per inch.

    `savefig` does it too, by drawing all of the figure once more, which takes a third of its time."""
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine("none")


def draw_image(ax: Axes, pixels: npt.NDArray[np.float32], **place: Any) -> None:
    """Draw pixels (H, W, 3) or (H, W, 1) in [0, 1] as they are; `place` is what `imshow` knows, such as `extent`."""
    remove_ticks(ax)
    ax.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, **place)


def draw_photo(ax: Axes, photo: Photo, pixels: npt.NDArray[np.float32] | None = None) -> None:
    """Draw what a result holds of a photograph, in the coordinates of the photograph's own px.

    pixels: others in its place, made of `photo.held`."""
    height, width = photo.size
    smooth = {"interpolation": "hanning"} if photo.shortfall else {}  # else a copy that is enlarged shows its px
    draw_image(
        ax,
        to_floats(photo.held) if pixels is None else pixels,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        **smooth,
    )


def shorten(text: str, most: int = 42) -> str:
    """A name that fits over a panel: the middle of a long one is left out."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 + 1 :]}"


def remove_ticks(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def dim_unseen(ax: Axes, size: tuple[int, int], box: Box) -> None:
    """Veil the parts of a photograph of this height and width that the crop keeps from the network."""
    height, width = size
    veil_around(ax, Box(-0.5, -0.5, height - 0.5, width - 0.5), _find_edges(box))
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def veil_around(ax: Axes, whole: Box, kept: Box, opacity: float = 0.7) -> None:
    """Veil what lies in one place, but not in another, both in the axes' own numbers."""
    from matplotlib.patches import Rectangle

    veil = current_style().paper
    for top, left, bottom, right in (
        (whole.top, whole.left, kept.top, whole.right),
        (kept.bottom, whole.left, whole.bottom, whole.right),
        (kept.top, whole.left, kept.bottom, kept.left),
        (kept.top, kept.right, kept.bottom, whole.right),
    ):
        if bottom > top and right > left:
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, color=veil, alpha=opacity, lw=0))


def draw_box(ax: Axes, box: Box, colour: str = "black", **look: Any) -> None:
    """Draw a box in px of a photograph; `look` is what `draw_frame` knows."""
    draw_frame(ax, _find_edges(box), colour, **look)


def draw_frame(
    ax: Axes, at: Box, colour: str, ground: str = "", thickness: float = 1.5, *, dashed: bool = False
) -> None:
    """Draw a line around a place in the axes' own numbers. thickness: of the line, in points. ground: the colour of a
    line behind it, twice as thick, so that it shows on everything; none for ""."""
    from matplotlib.patches import Rectangle

    corner, sides = (at.left, at.top), (at.right - at.left, at.bottom - at.top)
    if ground:
        ax.add_patch(Rectangle(corner, *sides, fill=False, lw=2 * thickness, color=ground))
    look = (0, (4, 4)) if dashed else "-"
    ax.add_patch(Rectangle(corner, *sides, fill=False, lw=thickness, color=colour, ls=look))


def _find_edges(box: Box) -> Box:
    """Where a box in px lies in axes, in which the middle of the first px is zero."""
    return Box(box.top - 0.5, box.left - 0.5, box.bottom - 0.5, box.right - 0.5)


def fit_picture(size: tuple[int, int], width: float, tallest: float) -> tuple[float, float]:
    """The width and height of a picture of this height and width: as wide as it may be, or as high, which is `tallest`
    times the width."""
    wide = min(width, tallest * width * size[1] / size[0])
    return wide, wide * size[0] / size[1]


def prepare_drawing() -> None:
    """Import what drawing needs, so that the first picture takes no longer than the others."""
    new_figure(1, 1).add_subplot()
