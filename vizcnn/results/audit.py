"""Audit: which classes of a data set are recognised by something that can be pasted and taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.output import write_whole
from vizcnn.results.audit_page import write_page
from vizcnn.results.audit_sheet import draw_nothing, draw_sheet
from vizcnn.results.audit_words import HEADINGS, describe_audit, describe_finding
from vizcnn.results.base import Result, check_format
from vizcnn.results.drawing import check_page
from vizcnn.results.evidence import AuditedClass, Effect, Finding, Sheet
from vizcnn.results.records import make_even

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Audit(Result):
    """What an audit of a data set has found, the shortcuts first, and what it could have found.

    findings: those to show; suspicions are among them only if they were asked for. classes: of the data set.
    labelled: whether classes are those that the data set says, and not those that the network predicts.
    could_find: the smallest share of a class, of usual size here, that a shortcut could be proven in; None where no
        class has enough images. images: that were looked at.
    runs: of the network for each image, on the average; a gradient counts as two. seconds_network, seconds_matching:
        that its runs took, and the comparing of pixels. untested: suspects that the limit of runs left untested.
    repeats: images that show the same picture as another one, of which one counts, each with that one: by name.
    partial: after Ctrl-C; what was proven until then.

    `records()` has one for each finding. `figure(page)` draws the sheet of one, and .html holds them all.
    """

    parts: ClassVar[tuple[type, ...]] = (Finding, Effect, Sheet, AuditedClass, Box)

    findings: tuple[Finding, ...]
    classes: tuple[AuditedClass, ...]
    labelled: bool
    could_find: float | None
    images: int
    runs: float
    seconds_network: float
    seconds_matching: float
    untested: int = 0
    repeats: tuple[tuple[str, str], ...] = ()
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The boxes of the findings, float64 (F, 4): top, left, bottom, right in px of the input."""
        rows = [[box.top, box.left, box.bottom, box.right] for box in (finding.box for finding in self.findings)]
        return {"boxes": np.array(rows, np.float64).reshape(-1, 4)}

    def summary(self) -> dict[str, Any]:
        return {
            "findings": [finding.summary() for finding in self.findings],
            "could_find": self.could_find,
            "classes": [each.summary() for each in self.classes],
            "labelled": self.labelled,
            "images": self.images,
            "runs_per_image": self.runs,
            "seconds_network": self.seconds_network,
            "seconds_matching": self.seconds_matching,
            "untested": self.untested,
            "repeats": [list(pair) for pair in self.repeats],
            "partial": self.partial,
        }

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        return make_even(_flatten(finding) for finding in summary["findings"])

    def describe(self) -> str:
        """A sentence for each finding, and what could have been found."""
        return "\n".join(describe_audit(self))

    @property
    def pages(self) -> int:
        """One for each finding."""
        return max(1, len(self.findings))

    def figure(self, page: int = 1) -> Figure:
        """The sheet of a finding: images with the cue, without it, and others before and after it was pasted.

        page: of which finding. Raises ParameterError where there is none of this number."""
        check_page(page, self.pages)
        if not self.findings:
            return draw_nothing(describe_audit(self), self.small_print)
        finding = self.findings[page - 1]
        return draw_sheet(finding, HEADINGS[finding.kind], describe_finding(finding), self.small_print)

    def save_sheet(self, page: int, path: str | Path) -> Path:
        """Write the sheet of one finding as a .png. Raises OutputError, and ParameterError for another ending."""
        path = Path(path)
        if check_format(path) != ".png":
            raise ParameterError(f"a sheet is a .png, got {path.name!r}. A .pdf or .html of the audit holds all")
        with write_whole(path) as fresh:
            self._draw_into(fresh, "png", 150, page)
        return path

    def _page(self) -> str:
        return write_page(self, [self._png(page) for page in range(1, len(self.findings) + 1)])


def _flatten(finding: Mapping[str, Any]) -> dict[str, Any]:
    """A finding of a summary as a row of a table."""
    row: dict[str, Any] = {}
    for key, value in finding.items():
        if key == "box":
            row |= dict(zip(("box_top", "box_left", "box_bottom", "box_right"), value, strict=True))
        elif isinstance(value, Mapping):
            row |= {f"{key}_{name}": one for name, one in value.items()}
        elif key not in ("examples", "removed"):  # names; and, where it was not tested, nothing
            row[key] = value
    return row
