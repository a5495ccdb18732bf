"""The picture of an explanation: all of its page for one look, in columns that run through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vizcnn.results.drawing import dim_unseen, draw_image, draw_photo, fit_picture, fit_text, wrap_text
from vizcnn.results.explained import Explained
from vizcnn.results.explanation_panels import Panel, Section, list_sections, pack_sections
from vizcnn.results.explanation_words import write_sentences
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS, _NARROW = 4, 2  # of a page, and of one that is for one column of a paper
_WIDE = 6.0  # inches, from which a page has all columns
_MARGIN, _GAP = 0.25, 0.24  # inches: around the page, between columns
_BELOW = 0.3  # inches between rows of sections
_SPACE = 0.07  # inches between a picture and its words
_TALLEST = 1.3  # of a picture, in widths
_BAR = 0.07  # inches, the height of an answer's bar
_HEADLINE = 6.0  # points that the headline is larger than a title
_SMALLER, _SMALLEST = 0.5, 6.0  # points that captions are smaller than small letters, and the least that they are


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a page are, in inches."""

    width: float

    @property
    def columns(self) -> int:
        return _COLUMNS if self.width >= _WIDE else _NARROW

    @property
    def column(self) -> float:
        return self.measure(1, self.width - 2 * _MARGIN + _GAP)

    def measure(self, span: int, whole: float = 0.0) -> float:
        """The width of so many columns beside each other."""
        one = (whole or self.width - 2 * _MARGIN + _GAP) / self.columns
        return span * one - _GAP

    def left(self, column: int) -> float:
        return _MARGIN + column * (self.column + _GAP)


def draw_explanation(found: Explained) -> Figure:
    """The answers and the sentences, then the sections with their panels below each other."""
    layout = _Layout(current_style().width)
    packed = pack_sections(list_sections(found), layout.columns)
    rows = [[_Block(each, layout, is_alone=len(row) == 1) for each in row] for row in packed]
    head = _Head(found, layout)
    heights = [max(block.height for block in row) for row in rows]
    height = _MARGIN + head.height + sum(_BELOW + each for each in heights) + _MARGIN / 2
    page = Page(layout.width, height, found.small_print)
    head.draw(page, _MARGIN)
    top = _MARGIN + head.height
    for row, high in zip(rows, heights, strict=True):
        column = 0
        for block in row:
            block.draw(page, top + _BELOW, column)
            column += block.span
        top += _BELOW + high
    return page.figure


class _Head:
    """The top of the page: the photograph, the best answers, and what was found in words."""

    def __init__(self, found: Explained, layout: _Layout) -> None:
        style = current_style()
        self.found, self.layout, self.points = found, layout, style.text + 1
        self.size = fit_picture(found.photo.size, layout.column, _TALLEST)
        self.beside = layout.columns > _NARROW  # the words stand beside the answers, else below
        room = layout.measure(2)
        self.lines = [wrap_text(each, room, self.points) for each in write_sentences(found)]
        self.title = measure_lines(1, style.title + _HEADLINE) + measure_lines(1, style.small) + 0.16

    @property
    def words(self) -> float:
        """The height of the sentences."""
        return sum(measure_lines(len(lines) + 0.4, self.points) for lines in self.lines)

    @property
    def bars(self) -> float:
        return len(self.found.answers) * (measure_lines(1, current_style().text) + _BAR + 0.1)

    @property
    def height(self) -> float:
        pictures = max(self.size[1], self.bars)
        return self.title + (max(pictures, self.words) if self.beside else pictures + 0.2 + self.words)

    def draw(self, page: Page, top: float) -> None:
        found, layout, style = self.found, self.layout, current_style()
        points, room = style.title + _HEADLINE, layout.width - 2 * _MARGIN
        headline = f"{found.asked.label}  {found.asked.amount}"
        page.write(_MARGIN, top, fit_text(headline, room, points, "bold"), points, weight="bold")
        about = f"{found.photo.name}, as {found.provenance.model} sees it"
        down = top + measure_lines(1, points)
        page.write(_MARGIN, down, fit_text(about, room, style.small), style.small, color=style.muted)
        top += self.title
        ax = page.add_axes(_MARGIN, top, *self.size)
        draw_photo(ax, found.photo)
        dim_unseen(ax, found.photo.size, found.seen)
        _hide_frame(ax)
        self._draw_bars(page, layout.left(1), top)
        if self.beside:
            self._draw_words(page, layout.left(2), top)
        else:
            self._draw_words(page, _MARGIN, top + max(self.size[1], self.bars) + 0.2)

    def _draw_bars(self, page: Page, left: float, top: float) -> None:
        from matplotlib.patches import Rectangle

        style, width = current_style(), self.layout.column
        for answer in self.found.answers:
            strong = answer.number == self.found.asked.number
            weight = "bold" if strong else "normal"
            label = fit_text(answer.label, width - 0.5, style.text, weight)
            page.write(left, top, label, style.text, weight=weight)
            page.write(left + width, top, answer.amount, style.text, ha="right", weight=weight)
            top += measure_lines(1, style.text)
            if answer.probability is not None:
                ax = page.add_axes(left, top, width, _BAR)
                _hide_frame(ax)
                ax.set(xlim=(0, 1), ylim=(0, 1), facecolor=style.faint)
                ax.patch.set_alpha(0.5)
                ax.add_patch(Rectangle((0, 0), answer.probability, 1, color=style.ink if strong else style.muted))
            top += _BAR + 0.1

    def _draw_words(self, page: Page, left: float, top: float) -> None:
        for lines in self.lines:
            page.write(left, top, "\n".join(lines), self.points)
            top += measure_lines(len(lines) + 0.4, self.points)


class _Block:
    """A section: its title over a line, its panels beside each other, and a note."""

    def __init__(self, section: Section, layout: _Layout, *, is_alone: bool) -> None:
        style = current_style()
        self.layout, self.span = layout, layout.columns if is_alone else len(section.panels)
        self.cards = [_Card(panel, layout.column) for panel in section.panels]
        self.points = style.small
        self.title = wrap_text(section.title, layout.measure(self.span), style.title, "bold")
        self.note = wrap_text(section.note, layout.measure(self.span), self.points) if section.note else []
        self.picture = max((card.picture for card in self.cards), default=0.0)

    @property
    def head(self) -> float:
        return measure_lines(len(self.title), current_style().title) + 0.12 * bool(self.title)

    @property
    def height(self) -> float:
        cards = max((card.measure(self.picture) for card in self.cards), default=0.0)
        return self.head + cards + measure_lines(len(self.note), self.points) + 0.1 * bool(self.note)

    def draw(self, page: Page, top: float, column: int) -> None:
        from matplotlib.lines import Line2D

        style, left = current_style(), self.layout.left(column)
        if self.title:
            ends, at = (left / page.width, (left + self.layout.measure(self.span)) / page.width), top - 0.06
            line = Line2D(ends, [1 - at / page.height] * 2, color=style.faint, lw=0.8)
            page.figure.add_artist(line)
            page.write(left, top, "\n".join(self.title), style.title, weight="bold")
        top += self.head
        for i, card in enumerate(self.cards):
            card.draw(page, self.layout.left(column + i), top, self.picture)
        top += max((card.measure(self.picture) for card in self.cards), default=0.0) + 0.1 * bool(self.note)
        page.write(left, top, "\n".join(self.note), self.points, color=style.muted)


class _Card:
    """A panel: its heading, its picture and what is said of it."""

    def __init__(self, panel: Panel, width: float) -> None:
        style = current_style()
        self.panel, self.width, self.points = panel, width, max(_SMALLEST, style.small - _SMALLER)
        self.size = (0.0, 0.0) if panel.pixels is None else fit_picture(panel.pixels.shape[:2], width, _TALLEST)
        trust = panel.trust
        self.verdict = wrap_text(f"{trust.sign} {trust.verdict}", width, style.small, "bold") if trust else []
        said = "; ".join(trust.sentences) if trust else ""
        self.reasons = wrap_text(said, width, self.points) if said else []
        self.caption = wrap_text(panel.caption, width, self.points if panel.pixels is not None else style.small)

    @property
    def picture(self) -> float:
        return self.size[1]

    @property
    def title(self) -> float:
        return measure_lines(1, current_style().text) + 0.03

    def measure(self, picture: float) -> float:
        """The height with a picture of this height, or with words in its place."""
        small, caption = current_style().small, len(self.caption)
        if self.panel.pixels is None:
            return self.title + max(picture, measure_lines(caption, small) + _SPACE)
        words = measure_lines(len(self.verdict), small) + measure_lines(len(self.reasons) + caption, self.points)
        return self.title + picture + _SPACE + words + 0.04 * bool(self.verdict)

    def draw(self, page: Page, left: float, top: float, picture: float) -> None:
        """picture: the height that all pictures of the row have together."""
        style, panel = current_style(), self.panel
        page.write(left, top, fit_text(panel.title, self.width, style.text), style.text)
        top += self.title
        if panel.pixels is None:
            page.write(left, top + _SPACE, "\n".join(self.caption), style.small, color=style.muted)
            return
        ax = page.add_axes(left, top, *self.size)
        draw_image(ax, panel.pixels.astype(np.float32), aspect="auto", interpolation="antialiased")
        _hide_frame(ax)
        top += picture + _SPACE
        page.write(left, top, "\n".join(self.verdict), style.small, weight="bold")
        top += measure_lines(len(self.verdict), style.small)
        page.write(left, top, "\n".join(self.reasons), self.points, color=style.muted)
        top += measure_lines(len(self.reasons), self.points) + 0.04 * bool(self.verdict)
        page.write(left, top, "\n".join(self.caption), self.points)


def _hide_frame(ax: object) -> None:
    for spine in ax.spines.values():  # type: ignore[attr-defined]
        spine.set_visible(False)
