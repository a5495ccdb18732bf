"""The sheet of a finding: rows of images with the cue, without it, and others before and after it was pasted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

from vizcnn.geometry import Box
from vizcnn.results.drawing import draw_frame, draw_image, fit_picture, fit_text, wrap_text
from vizcnn.results.evidence import Finding, Pictures
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _GAP, _BELOW = 0.15, 0.08, 0.14  # inches: around the page, between pictures, below a row
_NAMES = 0.95  # inches, of the column that says what a row shows
_COLUMNS, _TALLEST = 6, 1.25  # pictures in a row; their height in times their width
_LARGER = 1.35  # times the size of a title, of the heading
_BOX, _CHANGED = "#f0e442", "#d55e00"  # Okabe and Ito's yellow and vermillion


@dataclass(frozen=True)
class _Strip:
    """A row of pictures: what it shows, what is written over each, which answers have changed, where the cue lies."""

    name: str
    pictures: Sequence[Pictures]
    answers: Sequence[str]
    changed: Sequence[bool]
    boxes: Sequence[Box]


def draw_sheet(finding: Finding, heading: str, sentences: Sequence[str], caption: str) -> Figure:
    """The sheet of a finding, with a heading and sentences above, and the small print below."""
    style, strips = current_style(), [*_list_strips(finding)]
    room = style.width - 2 * _MARGIN
    names = min(_NAMES, room / 5)
    cell = (room - names) / _COLUMNS - _GAP
    title = wrap_text(f"{finding.label}. {heading}", room, _LARGER * style.title, "bold")
    said = [line for sentence in sentences for line in wrap_text(sentence, room, style.text)]
    top = _MARGIN + measure_lines(len(title), _LARGER * style.title)
    below = top + 0.05 + measure_lines(len(said), style.text) + 0.15
    heights = [_measure(strip, cell) for strip in strips]
    page = Page(style.width, below + sum(heights) + _MARGIN, caption)
    page.write(_MARGIN, _MARGIN, "\n".join(title), _LARGER * style.title, weight="bold")
    page.write(_MARGIN, top + 0.05, "\n".join(said), style.text)
    ground = page.add_ground()
    for strip, height in zip(strips, heights, strict=True):
        _draw_strip(page, ground, strip, below, names, cell)
        below += height
    return page.figure


def draw_nothing(sentences: Iterable[str], caption: str) -> Figure:
    """A page for an audit without findings."""
    style = current_style()
    room = style.width - 2 * _MARGIN
    lines = [line for sentence in sentences for line in wrap_text(sentence, room, style.text)]
    page = Page(style.width, 2 * _MARGIN + measure_lines(len(lines), style.text), caption)
    page.write(_MARGIN, _MARGIN, "\n".join(lines), style.text)
    return page.figure


def _list_strips(finding: Finding) -> Iterable[_Strip]:
    sheet, label = finding.sheet, finding.label
    has_box = finding.cue == "patch"
    boxes, pasted = (sheet.boxes, sheet.pasted_boxes) if has_box else ((), ())
    same = (False,) * len(sheet.carriers)
    yield _Strip("with the cue", [*sheet.carriers], sheet.carriers_answers, same, boxes)
    if has_box:
        parts = [_cut(pixels, box) for pixels, box in zip(sheet.carriers, boxes, strict=True)]
        yield _Strip("the cue, enlarged", parts, ("",) * len(parts), same, ())
    lost = [answer != label for answer in sheet.removed_answers]
    yield _Strip("cue removed", [*sheet.removed], sheet.removed_answers, lost, boxes)
    yield _Strip("others, before", [*sheet.others], sheet.others_answers, (False,) * len(sheet.others), ())
    for name, pictures, answers, marked in (
        ("cue pasted", sheet.pasted, sheet.pasted_answers, pasted),
        ("control pasted", sheet.controls, sheet.controls_answers, ()),
    ):
        yield _Strip(name, [*pictures], answers, [answer == label for answer in answers], marked)


def _cut(pixels: Pictures, box: Box) -> Pictures:
    return pixels[floor(box.top) : ceil(box.bottom), floor(box.left) : ceil(box.right)]


def _measure(strip: _Strip, cell: float) -> float:
    """The height of a row in inches."""
    line = measure_lines(1, current_style().small) * any(strip.answers)
    return line + max(fit_picture(_size(each), cell, _TALLEST)[1] for each in strip.pictures) + _BELOW


def _size(pixels: Pictures) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def _draw_strip(page: Page, ground: Axes, strip: _Strip, top: float, names: float, cell: float) -> None:
    style = current_style()
    line = measure_lines(1, style.small) * any(strip.answers)
    said = wrap_text(strip.name, names - 0.1, style.text)
    page.write(_MARGIN, top + line, "\n".join(said), style.text, color=style.muted)
    for k, pixels in enumerate(strip.pictures):
        left, changed = _MARGIN + names + k * (cell + _GAP), strip.changed[k]
        width, height = fit_picture(_size(pixels), cell, _TALLEST)
        at = Box(top + line, left, top + line + height, left + width)
        weight = "bold" if changed else "normal"
        answer = fit_text(("→ " if changed else "") + strip.answers[k], cell, style.small, weight)
        page.write(left, top, answer, style.small, weight=weight, color=_CHANGED if changed else style.ink)
        draw_image(
            ground, pixels, extent=(at.left, at.right, at.bottom, at.top), aspect="auto", interpolation="nearest"
        )
        if strip.boxes:
            draw_frame(ground, strip.boxes[k].map_onto(_size(pixels), at), _BOX, "black", 1.0)
        draw_frame(ground, at, _CHANGED if changed else style.muted, thickness=1.8 if changed else 0.6)
