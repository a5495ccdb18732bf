"""Proving: a suspect is pasted and removed on the half of the images that was not searched, always with a control."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vizcnn.auditing.copies import FEWEST, MATCH
from vizcnn.auditing.cues import Corner, Patch, Spot
from vizcnn.auditing.matching import Found
from vizcnn.auditing.network import Margins
from vizcnn.auditing.repeats import keep_distinct
from vizcnn.auditing.statistics import measure_interval
from vizcnn.auditing.suspects import FEWEST_OTHERS, Ground, Suspect
from vizcnn.models.scoring import Indices
from vizcnn.results.evidence import Copies, Effect

Verdict = Literal["shortcut", "part", "suspicion", "dismissed"]
Donor = tuple[int, Corner]

COPIED = 0.95
"""The median likeness of its copies from which a cue is copied px."""

LEAD = 0.15
"""How much more alike the median carrier of a changed cue must be than the most alike of other images.

Measured on photographs whose networks no table reports: at most 0.03 for 200 patches proposed for classes without a cue
of theirs (three carriers or more), and 0.2 to 0.55 for most patches of enlarged, half-transparent and lettered tags."""

GAIN = 0.25
"""The share of the class's usual margin that pasting and removing must both be worth, beyond the control."""

CHANGED = 0.10
"""How much more often than for the control an image must become the class, or be lost to it."""

RARER = 2
"""How many times more frequent a cue must be in its class than elsewhere."""

RECIPIENTS, REMOVED = 48, 32  # images that a cue is pasted into, and removed from, at most
MOST_RUNS = 3 * RECIPIENTS + 6 * REMOVED
"""Of the network, that a test takes at most."""

_RIVALS = 64  # other images, of which the most alike says what chance is: of fewer it says little
_OTHERS = 4 * RECIPIENTS  # images of other classes that are searched for the cue
_COMPARED = 2 * REMOVED  # images with a cue, of which each is compared with all others
_ABSENT = 0.5  # the likeness below which an image does not have the cue
_FEWEST_PLAIN, _PLAIN = 3, 0.25  # images of the class without the cue that can be a control; fewer are unseen carriers


@dataclass(frozen=True)
class Carriers:
    """The images of the tested half that have a cue, and where.

    share_inside: their share. share_outside: the share of other images that have it. likeness: their median. copies:
    how these are known to be copied px; None where they are not."""

    spots: list[Donor]
    share_inside: float
    share_outside: float
    likeness: float
    copies: Copies | None


@dataclass(frozen=True)
class Evidence:
    """What a test found of a suspect: numbers as in `vizcnn.results.evidence.Finding`, and the images behind them.

    donors: images with the cue, of the tested half; where there is none, the one that the suspect is from.
    recipients: what it was pasted into."""

    suspect: Suspect
    verdict: Verdict
    donors: list[Donor]
    recipients: list[int]
    carriers: Carriers
    tested: int
    pasted: Effect
    removed: Effect | None
    usual: float


def prove(ground: Ground, suspect: Suspect) -> Evidence | None:
    """Paste and remove a suspect on the images that were not searched; None where it is as frequent elsewhere, or
    nothing is there to paste it into."""
    halves, label = ground.halves, suspect.label
    own = halves.pick(halves.tested, label)
    others = ground.rng.permutation(halves.pick_others(halves.tested, label))[:_OTHERS]
    if len(others) < FEWEST_OTHERS:
        return None
    with ground.matching:
        inside, outside = suspect.cue.find(ground.see_all(own)), suspect.cue.find(ground.see_all(others))
    carriers, free = _gather(suspect, own, inside, outside), others[outside.likeness < MATCH]
    if len(free) < FEWEST_OTHERS or carriers.share_inside < RARER * carriers.share_outside:
        return None
    donors = carriers.spots or [(suspect.source, suspect.corner)]
    recipients = ground.rng.choice(free, min(RECIPIENTS, len(free)), replace=False)
    plain = own[inside.likeness < _ABSENT]
    pasted = _paste(ground, suspect, donors, recipients, plain if len(plain) >= _PLAIN * len(own) else plain[:0])
    usual = float(np.median(ground.margins[own, label]))
    does = pasted.low > 0 and pasted.difference >= GAIN * usual
    if does and carriers.copies is None and (alike := _find_alike(ground, suspect, own, others)):
        carriers, donors = alike, alike.spots
    if does and carriers.copies is not None and len(distinct := _keep_distinct(ground, carriers.spots)) < len(donors):
        carriers = replace(carriers, spots=distinct, share_inside=len(distinct) / len(own))
        donors = distinct
    removed = _remove(ground, suspect, carriers.spots[:REMOVED], free) if does and carriers.spots else None
    copied = carriers.copies is not None
    verdict = judge(pasted, removed, usual=usual, carriers=len(carriers.spots), copied=copied)
    return Evidence(suspect, verdict, donors, recipients.tolist(), carriers, len(own), pasted, removed, usual)


def _gather(suspect: Suspect, own: Indices, inside: Found, outside: Found) -> Carriers:
    """The images of the class in which a suspect was found, by what was found in these and in others."""
    has = inside.likeness >= MATCH
    spots = [(int(own[i]), _read_corner(inside, i)) for i in np.flatnonzero(has)]
    likeness = float(np.median(inside.likeness[has])) if spots else 0.0
    copied = suspect.cue.may_be_copied and likeness >= COPIED
    outer = float((outside.likeness >= MATCH).mean())
    return Carriers(spots, float(has.mean()), outer, likeness, "same" if copied else None)


def _find_alike(ground: Ground, suspect: Suspect, own: Indices, others: Indices) -> Carriers | None:
    """The images whose pattern is alike, where it is beyond what chance does: than the most alike of all others the
    median of three or more carriers is much more alike. Objects of a class are not: some other image comes near. Others
    are many, and searched only where there are carriers."""
    cue = suspect.cue
    if not isinstance(cue, Patch) or not cue.may_be_copied or len(others) < _RIVALS:
        return None
    with ground.matching:
        inside = cue.find_alike(ground.see_all(own))
        if (inside.likeness >= MATCH).sum() < FEWEST:
            return None
        likeness = float(np.median(inside.likeness[inside.likeness >= MATCH]))
        for some in (others[:_RIVALS], others):  # the first few decide most
            outside = cue.find_alike(ground.see_all(some))
            if likeness < outside.likeness.max() + LEAD:
                return None
    carriers = _gather(suspect, own, inside, outside)
    rarer = carriers.share_inside >= RARER * carriers.share_outside
    return replace(carriers, copies="alike") if rarer else None


def _keep_distinct(ground: Ground, spots: list[Donor]) -> list[Donor]:
    """The images with a cue that show different pictures: parts of one that was cropped several times are copies, too,
    and no tag. The first many are compared, each with all others."""
    some = spots[:_COMPARED]
    with ground.matching:
        kept = keep_distinct(ground.see_all([image for image, _ in some]), [corner for _, corner in some])
        return [*(some[i] for i in kept), *spots[_COMPARED:]]


def judge(pasted: Effect, removed: Effect | None, *, usual: float, carriers: int, copied: bool) -> Verdict:
    """What the effects of a cue prove.

    A cue decides where pasting and removing are both worth a quarter of the usual margin more than the control, the
    intervals do not reach zero, and answers change in a tenth more of the images. It is a shortcut where its px are
    copied, and else a part, of the object or not. A suspicion pastes well, but is not shown to be needed."""
    sufficient = pasted.low > 0 and pasted.difference >= GAIN * usual
    needed = removed is not None and carriers >= FEWEST and removed.low > 0 and removed.difference >= GAIN * usual
    changes = pasted.excess >= CHANGED or (removed is not None and removed.excess >= CHANGED)
    if sufficient and needed and changes:
        return "shortcut" if copied else "part"
    return "suspicion" if sufficient and pasted.excess >= CHANGED else "dismissed"


def _read_corner(found: Found, image: np.int64 | int) -> Corner:
    return int(found.corners[image][0]), int(found.corners[image][1])


def _paste(ground: Ground, suspect: Suspect, donors: list[Donor], recipients: Indices, plain: Indices) -> Effect:
    """What pasting does, beside the stricter of two controls: another place of the same donor, and, where there are
    such, the same place of images of the class that do not have the cue."""
    count, label = len(recipients), suspect.label
    chosen = [donors[i] for i in ground.rng.integers(len(donors), size=count)]
    cue = ground.measure(ground.paste(suspect.cue, chosen, recipients), label)
    controls = [ground.measure(ground.paste(suspect.cue, chosen, recipients, control=True), label)]
    if len(plain) >= _FEWEST_PLAIN:
        same = [
            (int(image), corner) for image, (_, corner) in zip(ground.rng.choice(plain, count), chosen, strict=True)
        ]
        controls.append(ground.measure(ground.paste(suspect.cue, same, recipients), label))
    return compare_with_controls(cue, controls)


def compare_with_controls(cue: Margins, controls: list[Margins]) -> Effect:
    """The effect of pasting, from the margins of the same images with the cue (n,) and with each of several controls.

    The control of the largest mean margin is taken for the difference, and the one that flips most for the rate."""
    strictest = max(controls, key=lambda margins: float(margins.mean()))
    flips = max(float((margins > 0).mean()) for margins in controls)
    return Effect(float((cue > 0).mean()), flips, *measure_interval(cue - strictest), len(cue))


def _remove(ground: Ground, suspect: Suspect, carriers: list[Donor], others: Indices) -> Effect:
    """What removing does in each of three ways, beside the same at the control."""
    margins = []
    for control in (False, True):
        made: list[Tensor] = []
        for image, corner in carriers:
            other = ground.see(int(ground.rng.choice(others)))
            made += suspect.cue.remove(ground.see(image), Spot(corner, ground.rng, control), other, ground.fill)
        margins.append(ground.measure(made, suspect.label).reshape(len(carriers), -1))  # (n, 3)
    removed, control_margins = margins
    return Effect(
        float((removed <= 0).mean()),
        float((control_margins <= 0).mean()),
        *measure_interval(control_margins.mean(1) - removed.mean(1)),
        len(carriers),
    )


def pick_pictures(ground: Ground, evidence: Evidence, count: int) -> tuple[list[Donor], list[int], dict[str, Tensor]]:
    """The pictures of a sheet, (n, C, H, W) each by name, with the images that have the cue and those without it.

    Of the three ways to remove a cue the last is shown, by what lies around it: the mean image has a ghost of what
    many images of a class carry, and another image brings things of its own."""
    suspect = evidence.suspect
    donors, others = evidence.donors[:count], evidence.recipients[:count]
    pairs = [donors[i % len(donors)] for i in range(len(others))]
    other = ground.see(others[0])
    rows = {
        "carriers": [ground.see(image) for image, _ in donors],
        "removed": [
            suspect.cue.remove(ground.see(image), Spot(corner, ground.rng), other, ground.fill)[-1]
            for image, corner in donors
        ],
        "others": [ground.see(image) for image in others],
        "pasted": ground.paste(suspect.cue, pairs, np.array(others)),
        "controls": ground.paste(suspect.cue, pairs, np.array(others), control=True),
    }
    return donors, others, {name: torch.stack(row) for name, row in rows.items()}
