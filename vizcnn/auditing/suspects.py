"""Suspects: what may decide a class, proposed from one half of its images and screened by pasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.auditing.clock import Clock
from vizcnn.auditing.copies import MATCH, CopySearch, find_frames
from vizcnn.auditing.cues import Colour, Corner, Cue, Patch, Spot
from vizcnn.auditing.maps import map_windows
from vizcnn.auditing.network import Margins, Network
from vizcnn.auditing.places import choose_apart, measure_common
from vizcnn.models.scoring import Indices

_WINDOWS = 4  # of each image, that do not touch: the object competes with the tag for the strongest one
_FIRST, _SECOND, _THIRD = 2, 4, 8  # images that a window is pasted into, before and after the better quarter is chosen
_COPIES = 4  # boxes of copied px of a class
_COLOURED = 8  # images of a class whose colours are tried, of at most a quarter
_COLOURS = 2  # of a class, that are tested: the object has a colour, too
_OTHERS = 32  # images of other classes that say what chance is
_KEPT = 2  # windows of a class that are asked a third time
_WORTH, _WORTH_COPIED = 0.08, 0.03  # the scores from which suspects are tested, and those of copied px

FEWEST_OWN = 8
"""Images that the network recognises as a class, from which it is audited."""

FEWEST_OTHERS = 8
"""Images of other classes that a cue must be pasted into."""


@dataclass(eq=False)
class Suspect:
    """A cue of a class, the image and the corner that it comes from, whether its px recur, and its score in screening:

    flips + tanh(gain / s) / 2, each less the control's; s: the deviation of the margins of all images."""

    label: int
    cue: Cue
    source: int
    corner: Corner
    copied: bool
    score: float = 0.0


@dataclass(frozen=True)
class Halves:
    """Which images are looked at to find suspects, and which to test them; classes: of each image, -1 where the network
    does not recognise it. predicted: what it says."""

    searched: Indices
    tested: Indices
    classes: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def pick(self, half: Indices, label: int) -> Indices:
        """The images of a class in one half."""
        return np.asarray(half[self.classes[half] == label])

    def pick_others(self, half: Indices, label: int) -> Indices:
        """Those in one half that neither are of the class nor are taken for it."""
        return np.asarray(half[(self.labels[half] != label) & (self.predicted[half] != label)])


@dataclass(frozen=True)
class Ground:
    """What every intervention of an audit works on: the network, the images as they are, their halves.

    margins: of each class, for all images as they are, (N, classes). fill: the mean of all classes, (C, H, W).
    matching: the time that comparing pixels takes."""

    network: Network
    halves: Halves
    margins: Margins
    fill: Tensor
    rng: np.random.Generator
    matching: Clock = field(default_factory=Clock)

    def see(self, image: int) -> Tensor:
        """An image as it is, (C, H, W), in main memory."""
        return self.see_all([image])[0]

    def see_all(self, images: Sequence[int] | Indices) -> Tensor:
        """Images as they are, (n, C, H, W), as floats in main memory."""
        chosen = self.network.images[torch.from_numpy(np.asarray(images, np.int64))]
        return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen.float()

    def paste(
        self,
        cue: Cue,
        donors: Sequence[tuple[int, Corner]],
        recipients: Indices,
        *,
        control: bool = False,
    ) -> list[Tensor]:
        """The recipients with the cue, or its control, of one donor each."""
        return [
            cue.paste(self.see(int(recipient)), self.see(donor), Spot(corner, self.rng, control))
            for recipient, (donor, corner) in zip(recipients, donors, strict=True)
        ]

    def measure(self, images: Sequence[Tensor], label: int) -> Margins:
        """The margin of a class for altered images (C, H, W) each: (n,)."""
        network = self.network
        return network.measure_margins(
            lambda some: network.prepare(torch.stack([images[i] for i in some])), len(images), label
        )


def estimate_runs(images: int) -> int:
    """About how often the network runs to screen a class, of whose images so many are searched."""
    better, coloured = max(_KEPT, images), max(1, min(_COLOURED, images // 4))
    windows = images * (3 + _WINDOWS * _FIRST) + 2 * (better * _SECOND + _KEPT * _THIRD)
    return windows + 2 * (_COPIES * _THIRD + coloured * _SECOND)


def find_suspects(ground: Ground, label: int, search: CopySearch) -> list[Suspect]:
    """What may decide a class, screened on the half that is searched; those that pasting says something for, best
    first."""
    own = ground.halves.pick(ground.halves.searched, label)
    others = ground.halves.pick_others(ground.halves.searched, label)
    if len(others) < FEWEST_OTHERS:
        return []
    sample = ground.see_all(ground.rng.permutation(others)[:_OTHERS])
    images = ground.see_all(own)
    with ground.matching:
        copies = [*search.find(images, sample, _COPIES), *find_frames(images, sample)]
    found = [Suspect(label, cue, int(own[i]), (cue.place[0], cue.place[1]), copied=True) for i, cue in copies]
    _screen(ground, found, label, others, _THIRD)
    windows = _screen_windows(ground, label, own, others, sample, found)
    count = max(1, min(_COLOURED, len(own) // 4))
    coloured = ground.rng.permutation(own)[:count]
    colours = [Suspect(label, Colour(ground.see(int(i)), sample), int(i), (0, 0), copied=False) for i in coloured]
    _screen(ground, colours, label, others, _SECOND)
    colours = sorted(colours, key=lambda each: -each.score)[:_COLOURS]
    best = [*found, *windows, *colours]
    worth = (each for each in best if each.score >= (_WORTH_COPIED if each.copied else _WORTH))
    return sorted(worth, key=lambda each: -each.score)


def _screen_windows(
    ground: Ground, label: int, own: Indices, others: Indices, sample: Tensor, found: Sequence[Suspect]
) -> list[Suspect]:
    """The windows of a class that decide most, without those that copied px account for."""
    places, values = map_windows(ground.network, own, np.full(len(own), label), ground.margins[own, label], ground.fill)
    chosen = choose_apart(values, places, _WINDOWS)  # (n, 4)
    windows = [
        Suspect(label, Patch(_cut(ground.see(int(image)), place), place, sample), int(image), place[:2], copied=False)
        for image, row in zip(own, chosen, strict=True)
        for place in (places[k] for k in row if k >= 0)
    ]
    if not windows:
        return []
    _screen(ground, windows, label, others, _FIRST, controlled=False)
    better = sorted(windows, key=lambda each: -each.score)[: max(_KEPT, len(windows) // 4)]
    _screen(ground, better, label, others, _SECOND)
    kept: list[Suspect] = []
    for each in sorted(better, key=lambda each: -each.score):
        if len(kept) == _KEPT or each.score < _WORTH:
            break
        if not any(accounts_for(ground, other, each) for other in (*found, *kept)):
            kept.append(each)
    _screen(ground, kept, label, others, _THIRD)
    return kept


def _cut(image: Tensor, place: tuple[int, int, int, int]) -> Tensor:
    return image[:, place[0] : place[2], place[1] : place[3]]


def accounts_for(ground: Ground, known: Suspect, other: Suspect) -> bool:
    """Whether the image that the other suspect is from has the known cue at the same place."""
    return known.cue.kind == "patch" and recurs_at(ground, known.cue, other.cue, [(other.source, other.corner)])


def recurs_at(ground: Ground, cue: Cue, known: Cue, spots: Sequence[tuple[int, Corner]]) -> bool:
    """Whether half or more of the images that have a known cue at these corners have another one at the same place."""
    with ground.matching:
        found = cue.find(ground.see_all([image for image, _ in spots]))
    shared = [
        likeness >= MATCH and measure_common(cue.locate((int(row), int(column))), known.locate(corner)) > 0
        for likeness, (row, column), (_, corner) in zip(found.likeness, found.corners, spots, strict=True)
    ]
    return bool(2 * sum(shared) >= len(shared))


def _screen(
    ground: Ground, suspects: Sequence[Suspect], label: int, others: Indices, count: int, *, controlled: bool = True
) -> None:
    """Score suspects by pasting each into so many images of other classes, and its control too."""
    if not suspects or not len(others):
        return
    recipients = np.stack([_draw(ground.rng, others, count) for _ in suspects])  # (S, count)
    scale = float(ground.margins[ground.halves.searched].max(1).std()) + 1e-6
    flips, gains = _try(ground, suspects, recipients, label, control=False)
    if controlled:
        others_flips, others_gains = _try(ground, suspects, recipients, label, control=True)
        flips, gains = flips - others_flips, gains - others_gains
    for suspect, score in zip(suspects, flips + 0.5 * np.tanh(gains / scale), strict=True):
        suspect.score = float(score)


def _draw(rng: np.random.Generator, images: Indices, count: int) -> Indices:
    return rng.choice(images, count, replace=len(images) < count)


def _try(
    ground: Ground, suspects: Sequence[Suspect], recipients: Indices, label: int, *, control: bool
) -> tuple[Margins, Margins]:
    """The share of each suspect's recipients (S, k) that become the class, and by how much its margin grows: (S,)."""
    count, before = recipients.shape[1], ground.margins[recipients, label]  # (S, k)

    def alter(some: Indices) -> Tensor:
        made = []
        for number in some:
            suspect, recipient = suspects[number // count], int(recipients[number // count, number % count])
            donor = ground.see(suspect.source)
            spot = Spot(suspect.corner, ground.rng, control)
            made.append(suspect.cue.paste(ground.see(recipient), donor, spot))
        return ground.network.prepare(torch.stack(made))

    after = ground.network.measure_margins(alter, recipients.size, label).reshape(recipients.shape)
    return (after > 0).mean(1), (after - before).mean(1)
