"""Draws a sequence diagram that is written in Mermaid's language, as much of it as docs/architecture.md uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(-?)->>(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+): (.+)")
_STEP = 0.6  # inches from one line of the diagram to the next
_APART = 1.25  # inches from one participant to the next


@dataclass(frozen=True)
class Line:
    """A message from one participant to another, a note over one, or the beginning of a case.

    kind: `message`, `answer`, `note` or `case`."""

    kind: str
    text: str
    start: str = ""
    end: str = ""


@dataclass(frozen=True)
class Diagram:
    """participants: names by their letters, from left to right. lines: from above to below."""

    participants: dict[str, str]
    lines: tuple[Line, ...]


def read(page: str) -> Diagram:
    """The diagram in a page's block of Mermaid. Raises ValueError for what cannot be drawn here."""
    found = re.search(r"^```mermaid\nsequenceDiagram\n(.*?)^```$", page, re.M | re.S)
    if not found:
        raise ValueError("the page has no sequence diagram")
    participants: dict[str, str] = {}
    lines: list[Line] = []
    for text in (line.strip() for line in found[1].splitlines()):
        if match := _PARTICIPANT.fullmatch(text):
            participants[match[1]] = match[2]
        elif match := _MESSAGE.fullmatch(text):
            lines.append(Line("answer" if match[2] else "message", match[4], match[1], match[3]))
        elif match := _NOTE.fullmatch(text):
            lines.append(Line("note", match[2], match[1]))
        elif match := re.fullmatch(r"(?:alt|else) (.+)", text):
            lines.append(Line("case", match[1]))
        elif text == "else":
            lines.append(Line("case", "otherwise"))
        elif text not in ("end", ""):
            raise ValueError(f"this line of the diagram cannot be drawn: {text}")
    return Diagram(participants, tuple(lines))


def draw(diagram: Diagram, style: Any) -> Figure:
    places = {letter: i * _APART for i, letter in enumerate(diagram.participants)}
    height = _STEP * (len(diagram.lines) + 1)
    figure = Figure(figsize=(_APART * len(places) + 0.6, height + 0.8))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set_xlim(-0.9, places[list(places)[-1]] + 0.9)
    ax.set_ylim(-height, 0.6)
    for letter, x in places.items():
        ax.plot([x, x], [0, -height], color=style.faint, linewidth=1, zorder=0)
        ax.text(x, 0.3, fill(diagram.participants[letter], 16), ha="center", va="center", fontsize=9, weight="bold")
    for i, line in enumerate(diagram.lines):
        _draw_line(ax, line, -_STEP * (i + 1), places, style)
    return figure


def _draw_line(ax: Any, line: Line, y: float, places: dict[str, float], style: Any) -> None:
    if line.kind == "case":  # a case begins below the line
        left, right = min(places.values()) - 0.7, max(places.values()) + 0.7
        ax.plot([left, right], [y + 0.1, y + 0.1], color=style.muted, linewidth=0.8, linestyle=":")
        ax.text(left, y - 0.1, line.text, fontsize=8, style="italic", color=style.muted)
    elif line.kind == "note":
        box = {"boxstyle": "round,pad=0.35", "facecolor": style.paper, "edgecolor": style.faint}
        ax.text(places[line.start], y, fill(line.text, 40), ha="center", va="center", fontsize=8, bbox=box)
    else:
        _draw_arrow(ax, line, y, places, style)


def _draw_arrow(ax: Any, line: Line, y: float, places: dict[str, float], style: Any) -> None:
    x, to = places[line.start], places[line.end]
    arrow = {"arrowstyle": "->", "color": style.ink, "linestyle": "--" if line.kind == "answer" else "-"}
    ax.annotate("", (to, y - 0.12), (x, y - 0.12), arrowprops=arrow)
    box = {"boxstyle": "round,pad=0.1", "facecolor": style.paper, "edgecolor": "none"}
    ax.text((x + to) / 2, y - 0.07, fill(line.text, 36), ha="center", va="bottom", fontsize=8, bbox=box)
