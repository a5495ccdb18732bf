"""What stands on the page of an explanation, whatever it is drawn with: sections of panels, pictures with captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.inputs.photo import Pixels, to_floats
from vizcnn.results.explained import Change, Evidence, Explained, UnitEffect
from vizcnn.results.explanation_words import count_cells
from vizcnn.results.overlay import Colours, paint_map
from vizcnn.results.photos import resize, shrink
from vizcnn.results.trust import Trust

SIDE = 480
"""px, the longer side of a panel's picture."""

_LINE = 2  # px, of each of the two lines around covered cells
_TILES = 4  # crops of a unit, in two rows
_HALF = 0.5  # the rank below which a consensus shows the photograph alone


@dataclass(frozen=True)
class Panel:
    """A picture with a heading above and a caption below.

    pixels: (h, w, 3) in [0, 1]; None for words alone. trust: of the map, which stands in the caption's first line.
    alt: what the picture shows, for those who cannot see it."""

    title: str
    pixels: Pixels | None
    caption: str
    trust: Trust | None = None
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """Panels that answer one question, with a line below."""

    title: str
    panels: tuple[Panel, ...]
    note: str = ""


def list_sections(found: Explained) -> list[Section]:
    """The sections of the page, but for the answers and the sentences at its top."""
    where = Section("Where does it look?", tuple(_list_maps(found)), _say_left_out(found))
    together = Section("Where do the maps agree, and what decides?", tuple(_list_together(found)))
    change = Section("What would change its mind?", tuple(_list_changes(found)))
    units = Section("Which features does it use?", tuple(_list_units(found)), _say_units(found))
    return [each for each in (where, together, change, units) if each.panels or each.note]


def pack_sections(sections: Sequence[Section], columns: int) -> list[list[Section]]:
    """The sections of each row: several where all their panels fit beside each other. Longer ones are parted."""
    parts = [
        Section(each.title if at == 0 else "", each.panels[at : at + columns], each.note * (at + columns >= count))
        for each in sections
        for count in [max(1, len(each.panels))]
        for at in range(0, count, columns)
    ]
    rows: list[list[Section]] = []
    for part in parts:
        taken = sum(len(each.panels) or columns for each in rows[-1]) if rows else columns
        if part.title and part.panels and taken + len(part.panels) <= columns:
            rows[-1].append(part)
        else:
            rows.append([part])
    return rows


def _list_maps(found: Explained) -> Iterator[Panel]:
    for one in found.maps:
        yield _draw_evidence(found, one, one.method)


def _list_together(found: Explained) -> Iterator[Panel]:
    consensus, support = found.consensus, found.say_support()
    if consensus is None or not consensus.is_agreed:  # a mean of maps that differ would be none of them
        yield Panel("All together", None, f"{support}.")
    else:
        colours = Colours(1.0, _HALF, signed=False)
        pixels = paint_map(found.photo, found.seen, consensus.ranks, colours, SIDE)
        place = f" Highest in the {_join_numbers(consensus.place)}." if consensus.place else ""
        yield Panel("All together", pixels, f"{support}.{place}", alt=f"Where the maps agree.{place}")
    if found.rather:
        yield _draw_evidence(found, found.rather, f"Rather than {found.rival.label}")


def _draw_evidence(found: Explained, one: Evidence, title: str) -> Panel:
    colours = Colours.of([one.values], signed=one.signed, percentile=one.percentile)
    pixels = paint_map(found.photo, found.seen, one.values, colours, SIDE)
    place = f"Highest in the {_join_numbers(one.place)}." if one.place else "Above zero nowhere."
    place += " What speaks against the answer is stronger." * (one.is_rather_against and bool(one.place))
    return Panel(title, pixels, place, one.trust, f"{title}: {one.meaning}. {place}")


def _list_changes(found: Explained) -> Iterator[Panel]:
    total = found.cells
    if found.flip is None:
        yield Panel("Covered: another answer", None, "No set of parts that was tried changes the answer.")
    else:
        said = f"{found.flip.answer.label} {found.flip.answer.amount}"
        count = int(found.flip.covered.sum())
        caption = f"{count_cells(count, total)} covered: {said}." + _say_needed(count)
        yield Panel("Covered: another answer", paint_change(found.flip), caption, alt=caption)
    if found.keep is None:
        yield Panel("Alone: the same answer", None, "No smaller part of the image was found that keeps the answer.")
    else:
        shown = total - int(found.keep.covered.sum())
        said = f"{found.keep.answer.label} {found.keep.answer.amount}"
        caption = (
            f"{count_cells(shown, total)} shown: {said}.{_say_needed(shown)}"
            if shown
            else f"With everything covered: {said}. The answer needs nothing of the image."
        )
        yield Panel("Alone: the same answer", paint_change(found.keep), caption, alt=caption)


def _say_needed(count: int) -> str:
    return " None of them can be left out." * (count > 1)


def _join_numbers(place: str) -> str:
    """A place whose numbers part neither from each other nor from their axis at the end of a line."""
    words, bracket, numbers = place.partition(" (")
    numbers = numbers.replace("-", "\u2011").replace(" ", "\u00a0").replace(",\u00a0", ", ")
    return words + bracket + numbers


def paint_change(change: Change) -> Pixels:
    """The input with cells covered (h, w, 3), larger, with a line around what is covered."""
    size = change.pixels.shape[:2]
    step = SIDE / max(size)
    height, width = (max(1, round(side * step)) for side in size)
    how = Image.Resampling.NEAREST if step > 3 else Image.Resampling.BICUBIC
    pixels = _make_rgb(resize(to_floats(change.pixels), (height, width), how).clip(0, 1)).copy()
    rows, columns = (
        np.minimum((np.arange(length) + 0.5) * count / length, count - 1).astype(int)
        for length, count in zip((height, width), change.covered.shape, strict=True)
    )
    covered = change.covered[np.ix_(rows, columns)]  # (h, w)
    edge = _find_edge(covered, 2 * _LINE)
    pixels[edge] = 1.0
    pixels[edge & _find_edge(covered, _LINE)] = 0.0
    return pixels


def _find_edge(inside: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """The px within `width` of a border between what is inside and what is not."""
    edge = np.zeros_like(inside)
    for axis in (0, 1):
        changes = np.diff(inside, axis=axis)
        for shift in range(-width + 1, width + 1):
            moved = np.zeros_like(inside)
            places = np.argwhere(changes)
            places[:, axis] = np.clip(places[:, axis] + shift, 0, inside.shape[axis] - 1)
            moved[tuple(places.T)] = True
            edge |= moved
    return edge


def _list_units(found: Explained) -> Iterator[Panel]:
    for unit in found.units:
        score = found.score
        caption = f"Without it the {found.quantity} changes from {score:.3g} to {score - unit.effect:.3g}."
        yield Panel(unit.target, _paint_unit(found, unit), caption, alt=f"{unit.target}: where it is active. {caption}")


def _paint_unit(found: Explained, unit: UnitEffect) -> Pixels:
    """Where the unit is active here, and beside that what it likes to see."""
    signed = bool((unit.activations < 0).any())
    colours = Colours.of([unit.activations], signed=signed, percentile=100)
    here = paint_map(found.photo, found.seen, unit.activations, colours, SIDE // 2)
    if not unit.tiles:
        return here
    height = here.shape[0]
    return np.concatenate([here, np.ones((height, 8, 3), np.float32), _paint_tiles(unit, height)], 1)


def _paint_tiles(unit: UnitEffect, side: int) -> Pixels:
    """The tiles in a square: one alone, or four in two rows."""
    tiles = unit.tiles[:_TILES]
    parts = 1 if len(tiles) == 1 else 2
    ground = np.ones((side, side, 3), np.float32)
    each = (side - 4 * (parts - 1)) // parts
    for i, tile in enumerate(tiles):
        top, left = (at * (each + 4) for at in divmod(i, parts))
        small = _make_rgb(resize(shrink(tile.pixels), (each, each), Image.Resampling.BICUBIC).clip(0, 1))
        ground[top : top + each, left : left + each] = small
    return ground


def _make_rgb(pixels: Pixels) -> Pixels:
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _say_left_out(found: Explained) -> str:
    """What the colours mean, and which methods have no map."""
    signs = {one.signed for one in found.maps}
    colours = ["Red speaks for the answer, blue against it"] * (True in signs)
    colours += ["of maps without a sign, brighter is stronger" if colours else "Brighter is stronger"] * (
        False in signs
    )
    left_out = [f"Not made: {name} ({reason})" for name, reason in found.left_out]
    return ". ".join(["; ".join(colours), *left_out] if colours else left_out)


def _say_units(found: Explained) -> str:
    if found.units_note:
        return found.units_note
    beside = {
        "optimised": "; right: a picture made to excite it",
        "crops": "; right: the parts of photographs that excite it most",
        "": "",
    }[found.tiles_are]
    return (
        f"The channels of {found.layer} that matter most here, of {found.channels}, each set to zero. Left: where it "
        f"is active{beside}"
    )
