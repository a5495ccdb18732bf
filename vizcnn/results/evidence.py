"""Evidence: what an audit knows of one thing that a class may be recognised by, in numbers and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.results.storing import AS_BYTES

Kind = Literal["shortcut", "part", "suspicion"]
CueKind = Literal["patch", "frame", "colour"]
Copies = Literal["same", "alike"]
Pictures = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Effect:
    """What pasting or removing a cue does, beside what the same does with a control.

    rate, control: shares of the images that become the class when the cue or its control is pasted, or that are lost
        to the class when it is removed.
    difference, low, high: by how much the class's margin changes more than for the control, in logits, and the 95%
        interval of Student's t; infinite for a single image. images: that this rests on.
    """

    rate: float
    control: float
    difference: float
    low: float
    high: float
    images: int

    @property
    def excess(self) -> float:
        """How much more often than for the control the answer changes."""
        return self.rate - self.control

    def summary(self) -> dict[str, Any]:
        """The numbers as plain values, None for an infinite end of an interval."""
        ends = {name: value if isfinite(value) else None for name, value in (("low", self.low), ("high", self.high))}
        shown = {"rate": self.rate, "control": self.control, "difference": self.difference}
        return {**shown, **ends, "images": self.images}


@dataclass(frozen=True)
class Sheet:
    """The pictures of a finding, each float32 (n, H, W, C) in [0, 1], and what the network says of each.

    carriers: images with the cue; removed: the same without it. others: images of other classes; pasted: the same with
    the cue; controls: with the control. Answers are names of classes; boxes lie in the carriers, and in those others
    that the cue is pasted into, in px.
    """

    carriers: Pictures = field(metadata=AS_BYTES)
    removed: Pictures = field(metadata=AS_BYTES)
    others: Pictures = field(metadata=AS_BYTES)
    pasted: Pictures = field(metadata=AS_BYTES)
    controls: Pictures = field(metadata=AS_BYTES)
    names: tuple[str, ...]
    boxes: tuple[Box, ...]
    pasted_boxes: tuple[Box, ...]
    carriers_answers: tuple[str, ...]
    removed_answers: tuple[str, ...]
    others_answers: tuple[str, ...]
    pasted_answers: tuple[str, ...]
    controls_answers: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a class is recognised by, or may be.

    kind: `shortcut`, copied px that decide; `part`, varied px or colour that decide, of which a person says whether
        they are the object; `suspicion`, not proven. label, index: of the class. cue: `patch`, `frame` or `colour`.
    box: of the cue, in px of the input, in the image that it was found in first; for a frame and colour all of it.
    thickness: of a frame in px, else 0.
    carriers: images of the class that have the cue, of `tested`, none of which was searched. share_inside: their share.
        share_outside: the share of other images that have it. likeness: the median of the carriers' copies, at most 1.
    copies: how these are known to be copied px: `same`, nearly equal; `alike`, the same pattern, larger or smaller,
        half-transparent or compressed, of which likeness is the correlation; None where they are not known to be.
    pasted, removed: what these do; `removed` is None where no image was there to test on, or pasting did nothing.
    usual: the median margin by which the class wins, in logits.
    """

    kind: Kind
    label: str
    index: int
    cue: CueKind
    box: Box
    thickness: int
    carriers: int
    tested: int
    share_inside: float
    share_outside: float
    likeness: float
    copies: Copies | None
    pasted: Effect
    removed: Effect | None
    usual: float
    sheet: Sheet

    def summary(self) -> dict[str, Any]:
        """The finding without its pictures, as plain values for JSON; `class` is the label."""
        return {
            "kind": self.kind,
            "class": self.label,
            "index": self.index,
            "cue": self.cue,
            "box": [self.box.top, self.box.left, self.box.bottom, self.box.right],
            "thickness": self.thickness,
            "carriers": self.carriers,
            "tested": self.tested,
            "share_inside": self.share_inside,
            "share_outside": self.share_outside,
            "likeness": self.likeness,
            "copies": self.copies,
            "pasted": self.pasted.summary(),
            "removed": None if self.removed is None else self.removed.summary(),
            "usual_margin": self.usual,
            "examples": list(self.sheet.names),
        }


@dataclass(frozen=True)
class AuditedClass:
    """A class of the data set. images: that the network recognises as it, of those `given` as of this class, each
    picture once. could_find: the smallest share of these images in which a shortcut could be proven; None where they
    are too few."""

    label: str
    index: int
    images: int
    given: int
    could_find: float | None

    def summary(self) -> dict[str, Any]:
        counts = {"images": self.images, "given": self.given}
        return {"class": self.label, "index": self.index, **counts, "could_find": self.could_find}


def find_usual(classes: Sequence[AuditedClass]) -> AuditedClass | None:
    """The class of median size of those in which something can be proven; None where there is none."""
    usable = sorted((each for each in classes if each.could_find is not None), key=lambda each: each.images)
    return usable[len(usable) // 2] if usable else None


class Audited(Protocol):
    """What the words and the page of an audit need of it, see `vizcnn.results.audit.Audit`."""

    @property
    def findings(self) -> tuple[Finding, ...]: ...
    @property
    def classes(self) -> tuple[AuditedClass, ...]: ...
    @property
    def labelled(self) -> bool: ...
    @property
    def could_find(self) -> float | None: ...
    @property
    def images(self) -> int: ...
    @property
    def untested(self) -> int: ...
    @property
    def repeats(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def partial(self) -> bool: ...
    @property
    def provenance(self) -> Any: ...
    @property
    def small_print(self) -> str: ...
    def manifest(self) -> dict[str, Any]: ...
