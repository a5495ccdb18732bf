"""How pictures that an ascent made are laid out and told: a probe says what it knows, and a result comes out.

`arrange`: of pictures made for targets. `arrange_inversions`: of pictures that layers cannot tell from photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, Pixels
from vizcnn.results.base import Provenance
from vizcnn.results.panels import Panel, Row, Scene, format_number
from vizcnn.results.picture import Frames, Optimised

Display = tuple[int, ...] | None
CROPS = 5
"""Parts of real images that stand beside a picture, at most."""

_MOST_SAID = 10  # pictures that a sentence names
_SIDE, _CROP_SIDE = 2.6, 1.1  # inches: of the largest tile, of one beside crops
_INVERTED_COLUMNS, _INVERTED_SIDE = 3, 2.4  # of pictures beside their photograph


@dataclass(frozen=True)
class Made:
    """A picture that was made for a target.

    target: its name. quantity: what its number is, such as `logit`. pixels: float32 (H, W, C) in [0, 1].
    reached: the target's number for the picture. lowered: whether it was to become small. copy: which of several
    pictures for this target, from 0. channel: the number of the unit that the target is; None where it is not one.
    responded: whether any change of the picture has ever changed the number.
    crops: the parts of real images that excite the unit most, each (H, W, C) below its value.
    """

    target: str
    quantity: str
    pixels: Pixels
    reached: float
    lowered: bool = False
    copy: int = 0
    channel: int | None = None
    responded: bool = True
    crops: tuple[tuple[str, Pixels], ...] = ()

    @property
    def panel(self) -> str:
        """The title of the panel that it belongs to."""
        return f"{self.quantity}, {'lowered' if self.lowered else 'raised'}"

    @property
    def title(self) -> str:
        return self.target + (f" #{self.copy + 1}" if self.copy else "")


@dataclass(frozen=True)
class Making:
    """How pictures were made: the recipe's name, its steps, and the weights of penalties that are not its own."""

    recipe: str
    steps: int
    weights: Mapping[str, float]

    def describe(self) -> str:
        changed = [f", {name} {weight:g}" for name, weight in self.weights.items()]
        return f"{self.recipe}, {self.steps} steps{''.join(changed)}"


@dataclass(frozen=True)
class RealImages:
    """Where crops come from: how many images, and which of a channel's values they are ranked by."""

    count: int
    rank: str


@dataclass(frozen=True)
class Inverted:
    """A picture that a layer cannot tell from a photograph.

    photo: the photograph's number among those that are shown. pixels: float32 (H, W, C) in [0, 1].
    error: how far the layer's activations are from those for the photograph, relative to these.
    """

    photo: int
    layer: str
    pixels: Pixels
    error: float


def arrange(
    provenance: Provenance,
    pictures: Sequence[Made],
    making: Making,
    frames: Frames,
    *,
    crops_from: RealImages | None = None,
    notes: Sequence[str] = (),
    interrupted_of: int | None = None,
) -> Optimised:
    """The result that shows pictures, in their order: a panel for each quantity, and for raising and lowering it.

    frames: uint8 (F, K, H, W, C), the K pictures on their way. crops_from: where pictures' crops come from; they stand
    beside them. notes: what else was found. interrupted_of: where Ctrl-C ended the making, how many were wanted.
    """
    return Optimised(
        provenance,
        tuple(_make_rows(pictures, making, crops_from, provenance.display)),
        tuple(_list_findings(pictures, making, notes, interrupted_of)),
        np.array([picture.reached for picture in pictures], np.float64),
        frames,
        partial=interrupted_of is not None,
    )


def arrange_inversions(
    provenance: Provenance,
    photos: Sequence[tuple[Photo, Box]],
    pictures: Sequence[Inverted],
    steps: int,
    frames: Frames,
    *,
    partial: bool = False,
) -> Optimised:
    """The result that shows, beside each photograph, the pictures that layers cannot tell from it.

    photos: each with the box of it that the network saw. pictures: at least one for each photograph, in their order.
    steps: of the optimiser, for each picture. frames: uint8 (F, K, H, W, C), the K pictures on their way.
    partial: whether Ctrl-C came before all pictures had had their steps.
    """
    rows, findings = list[Row](), list[str]()
    for i, (photo, seen) in enumerate(photos):
        members = [picture for picture in pictures if picture.photo == i]
        panel = _make_inverted_panel(i, members, steps, provenance.display)
        rows.append(Row((panel,), Scene(photo, seen, (None,))))
        reached = ", ".join(f"{picture.layer} {picture.error:.2g}" for picture in members)
        findings.append(f"{photo.name}: relative errors reached: {reached}{' (stopped early)' * partial}")
    errors = np.array([picture.error for picture in pictures], np.float64)  # (K,)
    return Optimised(provenance, tuple(rows), tuple(findings), errors, frames, partial=partial)


def _make_rows(
    pictures: Sequence[Made], making: Making, crops_from: RealImages | None, display: Display
) -> Iterator[Row]:
    for number, title in enumerate(dict.fromkeys(picture.panel for picture in pictures)):
        members = {i: picture for i, picture in enumerate(pictures) if picture.panel == title}
        panel = _make_panel(number, title, members, making, display)
        yield Row((panel,) if crops_from is None else _add_crops(panel, list(members.values()), crops_from))


def _make_panel(number: int, title: str, members: Mapping[int, Made], making: Making, display: Display) -> Panel:
    return _show_pictures(
        number,
        [picture.pixels for picture in members.values()],
        title=title,
        channels=tuple(i if picture.channel is None else picture.channel for i, picture in members.items()),
        titles=tuple(f"{picture.title}\n{format_number(picture.reached)}" for picture in members.values()),
        meaning=f"{making.describe()}; below each name the value reached",
        side=_SIDE,
        display=display,
    )


def _make_inverted_panel(number: int, members: Sequence[Inverted], steps: int, display: Display) -> Panel:
    return _show_pictures(
        number,
        [picture.pixels for picture in members],
        title="what each layer cannot tell from the photograph",
        channels=tuple(range(len(members))),
        titles=tuple(f"{picture.layer}\nerror {picture.error:.2g}" for picture in members),
        meaning=f"{steps} steps; below each layer the relative error of its activations",
        columns=_INVERTED_COLUMNS,
        side=_INVERTED_SIDE,
        display=display,
    )


def _show_pictures(
    number: int,
    pictures: Sequence[Pixels],
    *,
    title: str,
    channels: tuple[int, ...],
    titles: tuple[str, ...],
    meaning: str,
    side: float,
    display: Display,
    columns: int | None = None,
) -> Panel:
    """The sheet's panel of this number, counted from 0: pictures (H, W, C), drawn as they are. display: the
    channels that are drawn; None for all."""
    tiles = np.stack(pictures)  # (K, H, W, C)
    return Panel(
        key="pictures" if number == 0 else f"pictures-{number}",
        title=title,
        values=tiles[..., 0] if tiles.shape[3] == 1 else tiles,
        channels=channels,
        titles=titles,
        limits=((0.0, 1.0),) * len(tiles),
        meaning=meaning,
        colours="picture",
        columns=columns,
        side=side,
        display=display,
    )


def _add_crops(panel: Panel, pictures: Sequence[Made], crops_from: RealImages) -> tuple[Panel, Panel]:
    """Two panels: the pictures below each other, and right of each its crops, with white for those that lack."""
    tiles, titles = list[Pixels](), list[str]()
    for picture in pictures:
        blank = ("", np.ones((*picture.pixels.shape[:2], 3 if panel.is_rgb else 1), np.float32))
        shown = [*picture.crops, *[blank] * (CROPS - len(picture.crops))]
        titles += [f"\n{title}" for title, _ in shown]  # as many lines as over the picture
        # a network for RGB has seen grey photographs too
        tiles += [np.broadcast_to(tile, (*tile.shape[:2], 3)) if panel.is_rgb else tile.mean(2) for _, tile in shown]
    beside = replace(
        panel,
        key=f"{panel.key}.crops",
        title=f"of {crops_from.count:,} real images the best",
        values=np.stack(tiles),  # (K * CROPS, H, W, 3) or (K * CROPS, H, W)
        channels=tuple(channel for channel in panel.channels for _ in range(CROPS)),
        titles=tuple(titles),
        limits=((0.0, 1.0),) * len(tiles),
        meaning=f"what the strongest unit sees; above each the channel's {crops_from.rank} over positions",
        columns=CROPS,
        side=_CROP_SIDE,
        display=None,
    )
    return replace(panel, columns=1, side=_CROP_SIDE), beside


def _list_some(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    rest = len(names) - _MOST_SAID
    return ", ".join(names[:_MOST_SAID]) + (f" and {rest} more" if rest > 0 else "")


def _list_findings(
    pictures: Sequence[Made], making: Making, notes: Sequence[str], interrupted_of: int | None
) -> Iterator[str]:
    said = [f"{one.title} {'lowered to ' * one.lowered}{format_number(one.reached)}" for one in pictures]
    yield f"{making.describe()}: {_list_some(said)}"
    yield from notes
    if stuck := [picture.target for picture in pictures if not picture.responded]:
        yield (
            f"{_list_some(stuck)} never responded to any change, so these pictures show nothing: dead units, or units "
            "that the start cannot reach. Try another seed or size"
        )
    if interrupted_of is not None:
        yield f"stopped early: {len(pictures)} of {interrupted_of} pictures, as far as they got"
