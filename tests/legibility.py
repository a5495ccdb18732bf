"""Whether the texts of a figure can be read: all of each is on the page, none lies on another, none is too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from vizcnn.results.column import Column

PAGE = 900  # px, the width of a page that shows the figure
SMALLEST = 8.9  # px of a letter's full height on that page
_DPI = 110
_TOLERANCE = 1.0  # px


def find_faults(figure: Figure) -> list[str]:
    """A sentence for each text that leaves the figure, lies on another one, or is too small on a page 900 px wide.

    Figures narrower than the page are shown as they are, at 110 dots per inch."""
    figure.set_dpi(_DPI)
    drawn = _list_drawn(figure)
    return [*_find_cut(figure, drawn), *_find_overlaps(drawn), *_find_small(figure, drawn)]


def _list_drawn(figure: Figure) -> list[tuple[str, Bbox, Text]]:
    """The texts that are drawn, each with its place in px: ticks beyond the ends of an axis, for one, are not."""
    found = dict[Text, RendererBase]()

    def noting(draw: Callable[..., None]) -> Callable[..., None]:
        def note(text: Text, renderer: RendererBase, *args: Any, **others: Any) -> None:
            found[text] = renderer
            draw(text, renderer, *args, **others)

        return note

    figure.draw_without_rendering()  # settles the layout
    with patch.object(Text, "draw", noting(Text.draw)), patch.object(Column, "draw", noting(Column.draw)):
        figure.draw_without_rendering()
    shown = {text: renderer for text, renderer in found.items() if text.get_visible() and text.get_text().strip()}
    return [
        (line, box, text)
        for text, renderer in shown.items()
        for line, box in (
            text.place_lines(renderer) if isinstance(text, Column) else [(text.get_text(), text.get_window_extent())]
        )
    ]


def _find_cut(figure: Figure, drawn: list[tuple[str, Bbox, Text]]) -> Iterator[str]:
    page = figure.bbox
    for said, box, _ in drawn:
        beyond = max(page.x0 - box.x0, box.x1 - page.x1, page.y0 - box.y0, box.y1 - page.y1)
        if beyond > _TOLERANCE:
            yield f"{said!r} leaves the figure by {beyond:.0f} px"


def _find_overlaps(drawn: list[tuple[str, Bbox, Text]]) -> Iterator[str]:
    for (one, first, _), (other, second, _) in combinations(drawn, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        if min(across, down) > _TOLERANCE:
            yield f"{one!r} lies on {other!r}, {across:.0f} x {down:.0f} px"


def _find_small(figure: Figure, drawn: list[tuple[str, Bbox, Text]]) -> Iterator[str]:
    scale = min(1.0, PAGE / (figure.get_figwidth() * _DPI))
    for said, _, text in drawn:
        height = text.get_fontsize() / 72 * _DPI * scale  # type: ignore[operator]
        if height < SMALLEST:
            yield f"{said!r} is {height:.1f} px high on a page of {PAGE} px"
