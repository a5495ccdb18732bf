"""Styles: the paper, ink, letters and widths that pictures are drawn with. The colours of data are the same in all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vizcnn.errors import ParameterError, did_you_mean


@dataclass(frozen=True)
class Style:
    """How pictures look, but for the colours of their data.

    width, height: the most that a page takes, in inches.
    title, text, small: sizes of letters in points: of headings, of what goes with a panel, of what goes with a tile.
    paper, ink, muted, faint: colours of the ground, of text, of what is said beside, and of lines that only divide.
    caption: whether the line of provenance stands below. ending: of a picture's file where none was named.
    """

    name: str
    width: float
    height: float
    title: float = 9.5
    text: float = 8.5
    small: float = 7.5
    paper: str = "#ffffff"
    ink: str = "#1a1a1a"
    muted: str = "#5c5c5c"
    faint: str = "#d9d9d9"
    caption: bool = True
    ending: str = ".png"

    def settings(self) -> dict[Any, Any]:
        """The settings of matplotlib that belong to the style, by name."""
        grounds = ("figure.facecolor", "axes.facecolor")
        inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
        return {
            **dict.fromkeys(grounds, self.paper),
            **dict.fromkeys(inks, self.ink),
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "font.size": self.text,
            "axes.titlesize": self.title,
            "axes.labelsize": self.text,
            "xtick.labelsize": self.small,
            "ytick.labelsize": self.small,
            "legend.fontsize": self.text,
            "savefig.facecolor": "auto",
            "image.composite_image": False,  # else a .pdf would hold all tiles as one image, as coarse as the screen
            "pdf.fonttype": 42,  # TrueType, whole letters: what journals ask for, and what can be searched
            "svg.fonttype": "path",
        }


USUAL = Style("screen", 9.0, 18.0)
STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        USUAL,
        Style("dark", 9.0, 18.0, paper="#14171c", ink="#eceff3", muted="#a3abb6",
              faint="#3a414b"),
        Style("print", 3.35, 8.8, 8.0, 7.0, 6.0, ink="#000000", caption=False, ending=".pdf"),
        Style("print-wide", 7.0, 8.8, 8.0, 7.0, 6.0, ink="#000000", caption=False,
              ending=".pdf"),
    )
}  # fmt: skip
"""All styles by name, the usual one first."""

_usual = USUAL
_now: ContextVar[Style | None] = ContextVar("style", default=None)


def find_style(name: str) -> Style:
    """The style of this name. Raises ParameterError."""
    if name not in STYLES:
        raise ParameterError(f"styles are {', '.join(STYLES)}, got {name!r}.{did_you_mean(name, STYLES)}")
    return STYLES[name]


def current_style() -> Style:
    """The style that pictures are drawn in at present."""
    return _now.get() or _usual


def use_style(name: str) -> AbstractContextManager[None]:
    """Draw all pictures in another style from now on, or only inside a `with` block.

    name: `screen`, at most 9 x 18 inches. `dark`, the same on a dark ground. `print`, for one column of a paper (3.35
        inches, 85 mm) and `print-wide`, for both (7.0 inches, 178 mm): small letters, no line of provenance in the
        picture (the file carries it), and fonts that are embedded in a .pdf.

    Colours of data are the same in every style. Raises ParameterError for another name.

        vizcnn.use_style("dark")
        with vizcnn.use_style("print"):
            result.save("figure.pdf")
    """
    global _usual
    before, _usual = _usual, find_style(name)
    return _restoring(before)


@contextmanager
def _restoring(before: Style) -> Iterator[None]:
    global _usual
    try:
        yield
    finally:
        _usual = before


@contextmanager
def draw_in(style: Style) -> Iterator[None]:
    """While the context is open, this thread draws in a style."""
    token = _now.set(style)
    try:
        yield
    finally:
        _now.reset(token)
