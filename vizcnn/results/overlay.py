"""How the values of a map become colours over a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, to_floats, to_grey
from vizcnn.results.drawing import dim_unseen, draw_box, draw_photo
from vizcnn.results.maps import Maps, Mark
from vizcnn.results.style import current_style
from vizcnn.results.trust import describe_trust

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, ListedColormap, Normalize

_MOST = 0.85  # opacity of the strongest colour: the photograph shows through
_NOISE = 0.2  # the largest share of the colours' end that may count as noise
_DARKEST = 0.35  # of the grey photograph below: black would look like a colour of magnitudes

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Colours:
    """How one map, or several that can be compared, are coloured.

    end: the magnitude at which the colours end. noise: the magnitude up to which nothing is drawn. signed: whether zero
    is the middle of the colours; else they begin there. cut: whether there are magnitudes beyond the end.

    A map has some value at every pixel. Drawn as they are, the many small ones lie over the photograph as a veil, dark
    purple for magnitudes, whose lowest colours are dark. So the opacity begins at a noise level, the median of the
    magnitudes: the weaker half of the pixels shows the photograph alone. Where the whole map is strong that would hide
    much of it, so the level is at most a fifth of the end. From there the opacity grows with the square root, up to 85%
    at the end.
    """

    end: float
    noise: float
    signed: bool
    cut: bool = False

    @classmethod
    def of(cls, maps: list[Values], *, signed: bool, percentile: float) -> Colours:
        """The colours of maps (H, W) that are to be compared. They end at the largest value, or the largest percentile
        of the magnitudes above zero."""
        sizes = [np.abs(one[np.isfinite(one)]) for one in maps]
        end = max((float(np.percentile(size[size > 0], percentile)) for size in sizes if size.any()), default=1.0)
        together = np.concatenate(sizes)
        noise = min(float(np.median(together)), _NOISE * end) if together.size else 0.0
        return cls(end, noise, signed, percentile < 100)

    @property
    def cmap(self) -> Colormap:
        from matplotlib import colormaps

        return colormaps["RdBu_r" if self.signed else "inferno"]

    @property
    def norm(self) -> Normalize:
        from matplotlib.colors import Normalize

        return Normalize(-self.end if self.signed else 0, self.end)

    def opacity(self, values: Values) -> Values:
        """How much of the photograph each value hides, from 0 to 1; nothing where there is none (NaN)."""
        above = (np.abs(np.nan_to_num(values)) - self.noise) / (self.end - self.noise)
        return np.asarray(_MOST * np.clip(above, 0, 1) ** 0.5, np.float32)

    @property
    def extend(self) -> str:
        """The ends of the colour bar at which values are cut off, in matplotlib's words."""
        return "neither" if not self.cut else "both" if self.signed else "max"

    def ends(self) -> tuple[str, str, str]:
        """The numbers at the left end, the middle and the right end of the colour bar."""
        least, most = ("≤ ", "≥ ") if self.cut else ("", "")
        if self.signed:
            return f"{least}−{self.end:.3g}", "0", f"{most}{self.end:.3g}"
        return "0", f"{self.end / 2:.3g}", f"{most}{self.end:.3g}"

    def ramp(self) -> ListedColormap:
        """The colours as they look over white, from the lowest value to the highest: what a colour bar shows."""
        from matplotlib.colors import ListedColormap

        at = np.linspace(-self.end if self.signed else 0, self.end, 256, dtype=np.float32)
        opacity = self.opacity(at)[:, None] / _MOST  # (256, 1)
        return ListedColormap(1 - opacity * (1 - self.cmap(self.norm(at))[:, :3]))


def choose_colours(result: Maps, i: int, t: int) -> Colours:
    """The colours of the map of image i for target t: those of all maps of the image that mean the same."""
    alike = [k for k, meaning in enumerate(result.meanings) if meaning == result.meanings[t]]
    return Colours.of([result.values[i, k] for k in alike], signed=result.signed, percentile=result.percentile)


def draw_map(ax: Axes, result: Maps, i: int, t: int) -> None:
    """Draw the map of image i for target t over its photograph, in px of the photograph, with its boxes."""
    photo, seen, values, colours = result.photos[i], result.seen[i], result.values[i, t], choose_colours(result, i, t)
    draw_photo(ax, photo, _fade(photo))
    ax.imshow(
        values,
        cmap=colours.cmap,
        norm=colours.norm,
        alpha=colours.opacity(values),
        extent=(seen.left - 0.5, seen.right - 0.5, seen.bottom - 0.5, seen.top - 0.5),
        interpolation="nearest",
    )
    dim_unseen(ax, photo.size, seen)
    if second := second_mark(result, i, t):
        draw_box(ax, second.box, ground="white", thickness=0.8, line="dashed")
    if own := target_mark(result, i, t):
        draw_box(ax, own.box, ground="white", thickness=1.2, line="dotted")
    if mark := result.marks[i][t]:
        draw_box(ax, mark.box, ground="white")


def second_mark(result: Maps, i: int, t: int) -> Mark | None:
    """The lighter box of a map, where it has one."""
    return result.second_marks[i][t] if result.second_marks else None


def target_mark(result: Maps, i: int, t: int) -> Mark | None:
    """The box that a target is about, where it is about one."""
    return result.target_marks[i][t] if result.target_marks else None


def name_marks(result: Maps, i: int, t: int) -> list[str]:
    """What the boxes of a map are, in words."""
    boxes = (
        ("box", result.marks[i][t]), ("dashed", second_mark(result, i, t)), ("dotted", target_mark(result, i, t))
    )  # fmt: skip
    return [f"{kind}: {mark.text}" for kind, mark in boxes if mark]


def say_trust(result: Maps, i: int, t: int) -> str:
    """How far a map can be believed, in words; "" where that was not asked for."""
    return describe_trust(result.trust[i][t]) if result.trust else ""


def draw_bar(ax: Axes, colours: Colours, ends: tuple[str, str, str] | None = None) -> None:
    """Draw a lying colour bar. Below it, within its width, stand the numbers of its ends and its middle, or `ends`."""
    style = current_style()
    ax.imshow(np.linspace(0, 1, 256)[None], cmap=colours.ramp(), vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto")
    for spine in ax.spines.values():
        spine.set_color(style.faint)
    for at, number in zip((0.0, 0.5, 1.0), ends or colours.ends(), strict=True):
        side: Literal["left", "center", "right"] = "left" if at == 0 else "right" if at == 1 else "center"
        ax.annotate(
            number, (at, 0), (0, -2), textcoords="offset points", ha=side, va="top", fontsize=style.small,
            annotation_clip=False,
        )  # fmt: skip


def paint_map(photo: Photo, seen: Box, values: Values, colours: Colours, side: int) -> Values:
    """The same as pixels (h, w, 3) in [0, 1], the longer side of so many px: many are drawn in little time."""
    from PIL import Image

    height, width = photo.size
    step = side / max(height, width)
    size = max(1, round(height * step)), max(1, round(width * step))  # of the picture
    grey = Image.fromarray(np.ascontiguousarray(_fade(photo)[..., 0], np.float32))
    shown = np.asarray(grey.resize((size[1], size[0]), _choose_filter(size, grey.size)))  # (h, w)
    pixels = np.repeat(np.clip(shown, 0, 1)[..., None], 3, 2)  # (h, w, 3)
    top, bottom = (min(size[0], max(0, round(edge * step))) for edge in (seen.top, seen.bottom))
    left, right = (min(size[1], max(0, round(edge * step))) for edge in (seen.left, seen.right))
    rows = _spread(values.shape[0], bottom - top)
    columns = _spread(values.shape[1], right - left)
    near = values[np.ix_(rows, columns)]
    opacity = colours.opacity(near)[..., None]
    inside = pixels[top:bottom, left:right] * (1 - opacity) + opacity * colours.cmap(colours.norm(near))[..., :3]
    pixels = 0.3 * pixels + 0.7 * np.array(_read_paper(current_style().paper), np.float32)
    pixels[top:bottom, left:right] = inside
    return pixels.astype(np.float32)


def _fade(photo: Photo) -> Values:
    """The photograph in grey (H, W, 1), without its darkest tones."""
    return _DARKEST + (1 - _DARKEST) * to_grey(to_floats(photo.held))


def _choose_filter(size: tuple[int, int], source: tuple[int, int]) -> int:
    """How a picture is resampled: enlarged ones show their px."""
    from PIL import Image

    return Image.Resampling.NEAREST if size[1] > 2 * source[0] else Image.Resampling.BOX


def _spread(count: int, over: int) -> npt.NDArray[np.intp]:
    """Which of so many rows each px of a longer or shorter side shows."""
    return np.minimum((np.arange(over) + 0.5) * count / max(1, over), count - 1).astype(np.intp)


@lru_cache
def _read_paper(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)
