"""How the rows of Exemplars are laid out on pages and drawn: all places are measured in inches, from the upper left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Pixels
from vizcnn.results.drawing import (
    check_page,
    draw_frame,
    draw_image,
    fit_picture,
    fit_text,
    measure_text,
    split_rows,
    veil_around,
    wrap_text,
)
from vizcnn.results.excited import Excited, Exemplar
from vizcnn.results.masks import Mask, enlarge
from vizcnn.results.page import ASCENT, NARROWEST, Page, measure_caption, measure_lines
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _GAP, _REST = 0.12, 0.07, 0.2  # inches: around a page, between pictures, below a row
_NARROWEST, _WIDEST = 0.12, 1.7  # of a picture: inches for each point of its letters, so that a name fits; inches
_TALLEST = 1.25  # times the width of a photograph; of a part below it, once
_BOX = "#f0e442"  # Okabe and Ito's yellow, with a black edge, so that it shows on every photograph
_DARK = 0.62  # opacity of the shade where a channel does not respond

_BOXED = "Box: all that the strongest unit sees. Below: that part alone."
_LIT = (
    "Yellow line: around where the channel responds, above halfway from its mean to its maximum. Below: the part "
    "around the strongest place."
)
_LINED = f"{_LIT} White line: all that the strongest unit sees."
_BOTH = (
    "Box: all that the strongest unit sees. Where that is most of the image, yellow line: around where the channel "
    "responds, above halfway from its mean to its maximum. Below: that part alone."
)


@dataclass(frozen=True)
class Band:
    """A line of a row's photographs with their parts below them; the first also has what stands beside them.

    start, stop: which of the row's exemplars."""

    row: Excited
    start: int
    stop: int

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return self.row.exemplars[self.start : self.stop]

    @property
    def beside(self) -> tuple[tuple[str, Pixels], ...]:
        return () if self.start else self.row.beside

    @property
    def has_parts(self) -> bool:
        """Whether there are parts to show below the photographs."""
        return any(one.has_part for one in self.exemplars)


class Gallery:
    """The pages of a picture of these rows. ranked_by: what values are. caption: the small print below each page."""

    def __init__(self, rows: Sequence[Excited], ranked_by: str, caption: str) -> None:
        self.style, self.rows, self.caption = current_style(), rows, caption
        style = self.style
        self.extra = max(len(row.beside) for row in rows)  # pictures before the photographs of a row
        pictures = max(1, self.extra + max(len(row.exemplars) for row in rows))
        room, narrowest = style.width - 2 * _MARGIN, _NARROWEST * style.small
        fitting = max(self.extra + 1, int((room + _GAP) / (narrowest + _GAP)))
        columns = max(self.extra + 1, -(-pictures // -(-pictures // fitting)))  # so that lines are about as long
        self.columns = columns
        self.cell = min(_WIDEST, (room + _GAP) / columns - _GAP)
        self.width = min(style.width, max(columns * (self.cell + _GAP) - _GAP + 2 * _MARGIN, NARROWEST))
        self.room = self.width - 2 * _MARGIN
        shown = [one for row in rows for one in row.exemplars]
        ranked = f", ranked by {ranked_by}" * any(one.at for one in shown)  # a class has no positions
        self.heading = self._wrap(
            f"Images that excite each {'channel' if ranked else 'target'} most{ranked}", style.title
        )
        self.legend = self._wrap(self._explain(), style.small)

    def _wrap(self, text: str, points: float) -> list[str]:
        return wrap_text(text, self.room, points)

    def _explain(self) -> str:
        """What is to be known to read the pictures."""
        shown = [one for row in self.rows for one in row.exemplars]
        boxed = [one for one in shown if one.box and one.sees_beyond(one.box)]
        if not any(one.mask for one in shown):
            return _BOXED if boxed else ""
        if any(not one.mask for one in boxed):
            return _BOTH
        return _LINED if boxed else _LIT

    @cached_property
    def pages(self) -> list[list[Band]]:
        """The bands on each page, which is as high as the style allows, or as one band is."""
        bands = [*self._list_bands()]
        on = (len(self._head(band, starts=True)) for band in bands if band.start)  # lines above a row that goes on
        names = measure_lines(max(on, default=0), self.style.title)
        rest = self._measure_top() + names + measure_caption(self.caption, self.width, 2)
        return [bands[part.start : part.stop] for part in split_rows([self._measure(band) for band in bands], rest)]

    def _list_bands(self) -> Iterator[Band]:
        for row in self.rows:
            count, stop = len(row.exemplars), self.columns - self.extra
            yield Band(row, 0, min(stop, count))
            for start in range(stop, count, self.columns):
                yield Band(row, start, min(start + self.columns, count))

    def _measure_top(self) -> float:
        """The height of a page's heading."""
        style = self.style
        lines = measure_lines(len(self.heading), style.title) + measure_lines(len(self.legend), style.small)
        return _MARGIN + lines + _REST

    def _measure(self, band: Band, *, starts: bool = False) -> float:
        """The height of a band. starts: whether it is the first on its page, where a row that goes on has its name."""
        height = measure_lines(len(self._head(band, starts=starts)), self.style.title)
        if band.exemplars or band.beside:
            height += measure_lines(2, self.style.small) + self._measure_photos(band) + _GAP
        if band.has_parts:
            crops = [one.crop for one in band.exemplars if one.has_part]
            height += max(_place(crop, 0, 0, self.cell, 1).bottom for crop in crops) + _GAP
        ends = band.stop == len(band.row.exemplars)
        return height + (_REST if ends else _GAP)

    def _measure_photos(self, band: Band) -> float:
        pictures = [one.pixels for one in band.exemplars] + [pixels for _, pixels in band.beside]
        return max(_place(pixels, 0, 0, self.cell).bottom for pixels in pictures)

    def _head(self, band: Band, *, starts: bool) -> list[tuple[str, str]]:
        """The lines above a band, each the channel's name and what is said of it, one of which may be empty."""
        if band.start and not starts:
            return []
        style, name = self.style, band.row.target
        said = "continued" if band.start else band.row.describe_statistics()
        if self._indent(name) + measure_text(said, style.text) <= self.room:
            return [(name, said)]
        names = wrap_text(name, self.room, style.title, "bold")
        return [*((line, "") for line in names), *(("", line) for line in self._wrap(said, style.text))]

    def _indent(self, name: str) -> float:
        """Where the text behind a channel's name begins."""
        return measure_text(name, self.style.title, "bold") + 0.12 if name else 0.0

    def draw(self, page: int) -> Figure:
        """The figure of a page. Raises ParameterError for one that there is not."""
        check_page(page, len(self.pages))
        bands, style = self.pages[page - 1], self.style
        height = self._measure_top() + sum(self._measure(band, starts=not i) for i, band in enumerate(bands))
        made = Page(self.width, height, self.caption, page, len(self.pages))
        made.write(_MARGIN, _MARGIN, "\n".join(self.heading), style.title)
        below = _MARGIN + measure_lines(len(self.heading), style.title)
        made.write(_MARGIN, below, "\n".join(self.legend), style.small, color=style.muted)
        ground, top = made.add_ground(), self._measure_top()
        for i, band in enumerate(bands):
            self._draw_band(made, ground, band, top, starts=not i)
            top += self._measure(band, starts=not i)
        return made.figure

    def _draw_band(self, page: Page, ground: Axes, band: Band, top: float, *, starts: bool) -> None:
        """ground: axes over the whole page, in inches."""
        style = self.style
        for name, said in self._head(band, starts=starts):
            page.write(_MARGIN, top, name, style.title, weight="bold")
            lower = ASCENT * (style.title - style.text) / 72  # on the same baseline
            page.write(_MARGIN + self._indent(name), top + lower, said, style.text, color=style.muted)
            top += measure_lines(1, style.title)
        if not (band.exemplars or band.beside):
            return
        second, below = top + measure_lines(1, style.small), top + measure_lines(2, style.small)
        parts = below + self._measure_photos(band) + _GAP
        for k, (title, pixels) in enumerate(band.beside):
            left = self._find_left(k)
            page.write(left, second, fit_text(title, self.cell, style.small), style.small)
            _draw_framed(ground, pixels, _place(pixels, below, left, self.cell))
        for k, one in enumerate(band.exemplars, start=0 if band.start else self.extra):
            left = self._find_left(k)
            name = fit_text(one.label or one.short_name, self.cell, style.small)
            page.write(left, top, name, style.small)
            page.write(left, second, f"{one.value:.3g}", style.small, color=style.muted)
            _draw_photo(ground, one, _place(one.pixels, below, left, self.cell))
            if one.has_part:
                _draw_framed(ground, one.crop, _place(one.crop, parts, left, self.cell, 1))

    def _find_left(self, column: int) -> float:
        return _MARGIN + column * (self.cell + _GAP)


def _place(pixels: Pixels, top: float, left: float, cell: float, tallest: float = _TALLEST) -> Box:
    """The place of a picture with this corner: as wide as a cell, or as high as it may be, in times the cell."""
    width, height = fit_picture((pixels.shape[0], pixels.shape[1]), cell, tallest)
    return Box(top, left, top + height, left + width)


def _draw_framed(ax: Axes, pixels: Pixels, at: Box) -> None:
    """Draw a picture with a frame, which a white one needs."""
    draw_image(ax, pixels, extent=_extent(at), aspect="auto")
    draw_frame(ax, at, current_style().muted, thickness=0.6)


def _draw_photo(ax: Axes, one: Exemplar, at: Box) -> None:
    """Draw a photograph and what is known of the channel in it."""
    draw_image(ax, one.pixels, extent=_extent(at), aspect="auto")
    seen = one.seen.map_onto(one.size, at)
    veil_around(ax, at, seen, 0.85 if one.mask else 0.7)  # paler than what is merely dark
    if one.mask:
        _shade(ax, one.mask, seen)
    if one.box and one.sees_beyond(one.box):
        box, (colour, thickness) = one.box.map_onto(one.size, at), ("white", 0.5) if one.mask else (_BOX, 1.2)
        draw_frame(ax, box, colour, "black", thickness)
    draw_frame(ax, at, current_style().muted, thickness=0.6)


def _shade(ax: Axes, mask: Mask, seen: Box) -> None:
    """Shade a photograph where the channel does not respond, with a line around where it does."""
    from matplotlib.patheffects import withStroke

    shade = np.zeros((*mask.size, 4), np.float32)
    shade[..., 3] = _DARK * ~mask.cover()
    ax.imshow(shade, extent=_extent(seen), aspect="auto")
    rows, columns = (
        low + (np.arange(n) + 0.5) * (high - low) / n  # the middles of px
        for n, low, high in zip(mask.size, (seen.top, seen.left), (seen.bottom, seen.right), strict=True)
    )
    if min(mask.size) > 1 and not mask.cover().all():
        large = enlarge(mask.activations, mask.size)
        line = ax.contour(columns, rows, large, [mask.level], colors=_BOX, linewidths=0.8)
        line.set_path_effects([withStroke(linewidth=1.6, foreground="black")])


def _extent(at: Box) -> tuple[float, float, float, float]:
    return at.left, at.right, at.bottom, at.top
