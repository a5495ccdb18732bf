"""How the rows of an ImageGrid are drawn: each panel is one pair of axes, measured in inches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.drawing import dim_unseen, draw_box, draw_photo, fit_picture, fit_text, measure_axes, new_figure
from vizcnn.results.page import Page, measure_lines
from vizcnn.results.pages import BETWEEN, Block, Strip, find_height, find_room
from vizcnn.results.panel_layout import MARK, PanelLayout
from vizcnn.results.panels import Panel, Row, Scene, format_number
from vizcnn.results.style import current_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PHOTO = 0.27  # of a page's width, the width of a photograph
_TALLEST_PHOTO = 1.6  # times its width
_SHAPE, _TALLEST = 1.4, 0.8  # of the tiles on a page: width by height, and height by the page's width
_SHAPE_OF_GROUPS = 2.0  # of tiles in groups, which have more space between them across than down
_SHAPE_BESIDE, _TALLEST_BESIDE = 2.4, 2.1  # the same beside a photograph, the height in inches
_NARROWEST = 0.18  # of a page's width, a panel's beside another: its title needs room
_WIDE = 4.0  # inches beside a photograph, below which tiles stand in the form of a page of their own
_COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7")  # Okabe and Ito's, distinct for any colour vision
_MAPS = {"grey": "gray", "magnitude": "viridis", "picture": "gray"}


def make_block(row: Row) -> Block:
    """What a row is on a page."""
    if row.scene is None:
        return Block(tuple(map(_put_side_by_side, _cut_lines(row))))
    photo = make_photo_strip(row.scene)
    room = find_room() - photo.width - BETWEEN
    colours = [pick_colour(i) if mark else None for i, mark in enumerate(row.scene.marks)]
    strips = [_make_strips(panel, room, colour) for panel, colour in zip(row.panels, colours, strict=True)]
    return Block(tuple(chain.from_iterable(strips)), photo)


def make_photo_strip(scene: Scene, width: float | None = None, head: float | None = None) -> Strip:
    """The photograph of a row with its name and boxes, in inches.

    width: by default a share of the page's. head: the height of what stands over it, by default that of its name."""
    width = _PHOTO * current_style().width if width is None else width
    head = measure_lines(1, current_style().title) + 0.06 if head is None else head
    size = fit_picture(scene.photo.size, width, _TALLEST_PHOTO)
    return Strip(width, head + size[1], partial(_draw_scene, scene, (head, *size)))


def _make_strips(panel: Panel, room: float, colour: str | None) -> Iterator[Strip]:
    """The strip of a panel beside a photograph, or several where no page can hold one."""
    shape = _SHAPE_BESIDE if room > _WIDE else _SHAPE
    layout = PanelLayout([panel], room, shape=shape, tallest=_TALLEST_BESIDE, marked=bool(colour))
    if (lines := layout.count_lines(find_height())) < layout.lines and panel.columns:
        for first in range(0, layout.lines, lines):
            (part,) = _select_lines([panel], first, first + lines)
            yield from _make_strips(part, room, colour)
        return
    yield Strip(layout.width, layout.height, partial(_draw_on_page, [([panel], layout)], colour))


def _cut_lines(row: Row) -> list[Row]:
    """The row, or, where no page can hold it and its panels' columns are given, parts of it with fewer lines."""
    whole = _measure_side_by_side(_group(row), row.names)
    lines = min(layout.count_lines(find_height()) for layout in whole)
    most = max(layout.lines for layout in whole)
    if most <= lines or not all(panel.columns for panel in row.panels):
        return [row]
    return [replace(row, panels=_select_lines(row.panels, first, first + lines)) for first in range(0, most, lines)]


def _select_lines(panels: Sequence[Panel], first: int, end: int) -> tuple[Panel, ...]:
    """The panels with some of their lines of tiles only, without those that have none there."""
    columns = [panel.columns or len(panel.values) for panel in panels]
    pairs = [(panel, each) for panel, each in zip(panels, columns, strict=True) if first * each < len(panel.values)]
    return tuple(panel.select(slice(first * each, end * each)) for panel, each in pairs)


def _group(row: Row) -> list[tuple[Panel, ...]]:
    """The panels that share a pair of axes."""
    return [row.panels] if row.names else [(panel,) for panel in row.panels]


def _put_side_by_side(row: Row) -> Strip:
    groups = _group(row)
    layouts = _measure_side_by_side(groups, row.names)
    width = sum(layout.width for layout in layouts) + BETWEEN * (len(layouts) - 1)
    height = max(layout.height for layout in layouts)
    return Strip(width, height, partial(_draw_on_page, [*zip(groups, layouts, strict=True)], None))


def _measure_side_by_side(groups: Sequence[Sequence[Panel]], names: Sequence[str]) -> list[PanelLayout]:
    """Layouts that together are as wide as a page, with their heads and, where their columns are given, their tiles of
    one height."""
    style, room = current_style(), find_room() - BETWEEN * (len(groups) - 1)
    shape, tallest = (_SHAPE_OF_GROUPS if names else _SHAPE) / len(groups), _TALLEST * style.width

    def lay_out(widths: Sequence[float], most: float = np.inf) -> list[PanelLayout]:
        small = [[replace(each, side=min(each.side, most)) for each in group] for group in groups]
        return [
            PanelLayout(group, width, names=names, shape=shape, tallest=tallest)
            for group, width in zip(small, widths, strict=True)
        ]

    layouts = lay_out([room] * len(groups))
    if len(groups) > 1:
        widths = [max(layout.body, _NARROWEST * style.width) for layout in layouts]
        layouts = lay_out([width * min(1.0, room / sum(widths)) for width in widths])
        if all(panel.columns for group in groups for panel in group):
            layouts = lay_out([layout.width for layout in layouts], min(max(layout.tile) for layout in layouts))
    head = max(layout.head for layout in layouts)
    for layout in layouts:
        layout.align(head)
    return layouts


def _draw_on_page(
    groups: Sequence[tuple[Sequence[Panel], PanelLayout]], colour: str | None, page: Page, left: float, top: float
) -> None:
    for panels, layout in groups:
        _draw_group(page.add_axes(left, top, layout.width, layout.height), panels, layout, colour)
        left += layout.width + BETWEEN


def pick_colour(i: int) -> str:
    """The colour that ties panel i to its box on the photograph."""
    return _COLOURS[i % len(_COLOURS)]


def _draw_scene(scene: Scene, size: tuple[float, float, float], page: Page, left: float, top: float) -> None:
    """size: of the head, and the width and height of the photograph, in inches."""
    head, width, height = size
    ax, style = page.add_axes(left, top + head, width, height), current_style()
    draw_photo(ax, scene.photo)
    dim_unseen(ax, scene.photo.size, scene.seen)
    before: set[Box] = set()
    for i, mark in enumerate(scene.marks):
        if mark:
            again = mark.box in before  # then dashed and without a ground, so that both colours show
            draw_box(ax, mark.box, pick_colour(i), ground="" if again else "black", thickness=1.2, dashed=again)
            before.add(mark.box)
    page.write(left, top, fit_text(scene.photo.name, width, style.title), style.title)
    ax.spines[:].set_visible(False)


def plot_panel(panel: Panel, ax: Axes | None, lead: str) -> Axes:
    """Draw a panel on axes, or on new ones of its own size. lead: goes before its title. Returns the axes."""
    if ax is None:
        layout = PanelLayout([panel], find_room(), tallest=_TALLEST * current_style().width, lead=lead)
        ax = new_figure(layout.width + 0.3, layout.height + 0.3).add_subplot()
    else:
        layout = PanelLayout(
            [panel], max(1.0, measure_axes(ax)[0]), tallest=_TALLEST * current_style().width, lead=lead
        )
    return _draw_group(ax, [panel], layout, None)


def _draw_group(ax: Axes, panels: Sequence[Panel], layout: PanelLayout, colour: str | None) -> Axes:
    """Draw panels, tile beside tile, with a square of the colour of their box if they have one. Returns the Axes."""
    style = current_style()
    for label, (top, left) in zip(layout.labels, layout.corners(), strict=True):
        if label:
            ax.text(left, top - 0.02, label, fontsize=style.small, color=style.ink, va="bottom")
    for member, panel in enumerate(panels):
        _draw_tiles(ax, panel, layout, member)
    _draw_head(ax, layout, colour)
    if layout.ticks:
        _draw_bar(ax, panels[0], layout)
    ax.set(xlim=(0, layout.width), ylim=(layout.height, 0), aspect="equal", anchor="NW")
    ax.axis("off")
    return ax


def _draw_tiles(ax: Axes, panel: Panel, layout: PanelLayout, member: int) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    h, w = layout.tile
    edges = list[Rectangle]()
    for values, limits, (top, left) in zip(panel.values, panel.limits, layout.corners(member), strict=True):
        place = (left, left + w, top + h, top)
        levels = scale_to_levels(values, limits)
        ax.imshow(levels, _MAPS[panel.colours], vmin=0, vmax=1, extent=place, interpolation="nearest")
        edges.append(Rectangle((left, top), w, h))
    # a tile as bright as the paper has an edge too
    ax.add_collection(PatchCollection(edges, facecolor="none", edgecolor=current_style().faint, lw=0.4))


def scale_to_levels(values: npt.NDArray[np.float32], limits: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Map values to brightness in [0, 1]: the limits become black and white, what lies beyond them too."""
    low, high = limits
    levels: npt.NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1)
    return levels


def _draw_head(ax: Axes, layout: PanelLayout, colour: str | None) -> None:
    """Title and scale; a square in the colour of the panel's box ties the two together."""
    style = current_style()
    if colour:
        draw_square(ax, 0, 0.02, colour)
    ax.text(layout.indent, 0, "\n".join(layout.title), fontsize=style.title, color=style.ink, va="top")
    top = measure_lines(len(layout.title), style.title)
    ax.text(0, top, "\n".join(layout.scale), fontsize=style.small, color=style.muted, va="top")


def draw_square(ax: Axes, left: float, top: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((left, top), MARK, MARK, facecolor=colour, edgecolor="black", lw=0.6))


def _draw_bar(ax: Axes, panel: Panel, layout: PanelLayout) -> None:
    """The colour bar of tiles that share a scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    left, top, width, height = layout.bar
    place = left / layout.width, 1 - (top + height) / layout.height, width / layout.width, height / layout.height
    colours = ScalarMappable(Normalize(*panel.limits[0]), _MAPS[panel.colours])
    bar = ax.figure.colorbar(colours, cax=ax.inset_axes(place))
    style = current_style()
    bar.set_ticks([*layout.ticks], labels=[format_number(tick) for tick in layout.ticks])
    bar.ax.tick_params(labelsize=style.small, labelcolor=style.ink, color=style.muted, length=2, pad=2)
    bar.outline.set_linewidth(0.4)
