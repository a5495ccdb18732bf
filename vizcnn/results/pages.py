"""Pages: what stands where on the pages of a picture, in inches. Nothing is cut in two by the end of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vizcnn.results.drawing import check_page, split_rows
from vizcnn.results.page import NARROWEST, Page, measure_lines
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETWEEN = 0.2
"""Inches between what stands beside each other."""

_MARGIN = 0.1  # inches around a page
_BELOW = 0.28  # inches below a block


@dataclass(frozen=True)
class Strip:
    """What stands on a page in one piece: its width and height in inches, and how it is drawn from a left and a top."""

    width: float
    height: float
    draw: Callable[[Page, float, float], object]


@dataclass(frozen=True)
class Block:
    """Strips below each other that belong together, to the right of their photograph if they have one."""

    strips: tuple[Strip, ...]
    photo: Strip | None = None

    @property
    def width(self) -> float:
        beside = self.photo.width + BETWEEN if self.photo else 0.0
        return beside + max(strip.width for strip in self.strips)

    @property
    def height(self) -> float:
        return max(self.photo.height if self.photo else 0.0, _pile(self.strips))

    def draw(self, page: Page, left: float, top: float) -> None:
        if self.photo:
            self.photo.draw(page, left, top)
            left += self.photo.width + BETWEEN
        for strip in self.strips:
            strip.draw(page, left, top)
            top += strip.height + BETWEEN


def _pile(strips: Sequence[Strip]) -> float:
    """How high strips below each other are."""
    return sum(strip.height for strip in strips) + BETWEEN * (len(strips) - 1)


def count_pages(blocks: Sequence[Block]) -> int:
    """How many pages the blocks fill."""
    return len(_divide(blocks))


def draw_blocks(blocks: Sequence[Block], line: str, page: int) -> Figure:
    """A page of these blocks, with the line of provenance below. Raises ParameterError where there is no such page."""
    pages = _divide(blocks)
    check_page(page, len(pages))
    shown, style = pages[page - 1], current_style()
    width = min(style.width, max(NARROWEST, *(block.width + 2 * _MARGIN for block in blocks)))
    height = sum(block.height for block in shown) + _BELOW * (len(shown) - 1) + 2 * _MARGIN
    made, top = Page(width, height, line, page, len(pages)), _MARGIN
    for block in shown:
        block.draw(made, _MARGIN, top)
        top += block.height + _BELOW
    return made.figure


def find_room() -> float:
    """How wide a block may be, in inches."""
    return current_style().width - 2 * _MARGIN


def find_height() -> float:
    """How high a block may be on one page, in inches."""
    return current_style().height - _find_rest()


def _find_rest() -> float:
    """The height that a page needs for its margins and its caption."""
    return 2 * _MARGIN + _BELOW + measure_lines(3, current_style().small)


def _divide(blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks of each page. One that no page can hold goes on over several, with its photograph on each."""
    parts = [part for block in blocks for part in _cut(block, find_height())]
    pages = split_rows([part.height + _BELOW for part in parts], _find_rest() - _BELOW)
    return [[parts[i] for i in page] for page in pages]


def _cut(block: Block, most: float) -> Iterator[Block]:
    """The block, or parts of it of at most this height."""
    if block.height <= most:
        yield block
        return
    kept = list[Strip]()
    for strip in block.strips:
        if kept and _pile([*kept, strip]) > most:
            yield replace(block, strips=tuple(kept))
            kept = []
        kept.append(strip)
    yield replace(block, strips=tuple(kept))
