"""Trust: how far a map can be believed, in figures and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal[
    "supported", "weakly supported", "no better than chance", "do not read as reasons", "contrast not tested"
]

SUPPORTED, CHANCE = 90.0, 70.0
"""The percentile from which a map is supported, and the one below which it is no better than chance."""

DISTINCT, ALIKE = 0.7, 0.85
"""The likeness of the maps of two classes up to which they differ, and above which they are much the same."""

_SLACK = 0.1  # the share of an answer that a map which should add up to it may lack
_STEADY = 0.6

_SIGNS: dict[Verdict, str] = {
    "supported": "✓",
    "weakly supported": "~",
    "no better than chance": "✗",
    "do not read as reasons": "!",
    "contrast not tested": "?",
}


@dataclass(frozen=True)
class Trust:
    """How far the map of one image and target can be believed; see `docs/trust.md` for what the figures cannot say.

    need: from 0 to 100, of 100 null maps how many find what the network needs less well; ties count half.
    correlation: from -1 to 1, how well the map does: the mean of two rank correlations (Spearman) between how much of
        the map lies in what was covered and how much the target lost.
    blob: the same for a blob in the middle of the image.
    contrast: from -1 to 1, the likeness (Spearman, over cells) of this map and that of another class; None where that
        was not tested.
    contrast_target: that class. contrast_note: why it was not tested; of a map that is no map, what it is, such as
        `zero everywhere`; or "".
    runs: of the network, that of the image as it is among them; shared by all maps and targets of this image.
    steadiness: from -1 to 1, the likeness of the map with that of the picture moved by a few px; None if not asked for.
    missing: what the map's sum lacks of the answer's change that it should add up to, as a share of that; None if not
        asked for, or where the method promises no sum.
    """

    need: float
    correlation: float
    blob: float
    contrast: float | None
    contrast_target: str
    runs: int
    contrast_note: str = ""
    steadiness: float | None = None
    missing: float | None = None

    @property
    def verdict(self) -> Verdict:
        """The figures in a few words. A map is supported only where another class was tested, and has another map."""
        if self.contrast is not None and self.contrast > ALIKE:
            return "do not read as reasons"
        if self.need < CHANCE:
            return "no better than chance"
        if self.contrast is None:
            return "contrast not tested"
        is_distinct = self.contrast <= DISTINCT  # what is partly the same for another class is partly no reason
        return "supported" if self.need >= SUPPORTED and is_distinct else "weakly supported"

    @property
    def sign(self) -> str:
        """The verdict as a character, which differs by shape and not by colour."""
        return _SIGNS[self.verdict]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, the verdict's reason first."""
        said = [
            f"better than {int(self.need)} of 100 random maps at finding what the network needs",  # 89.5 is below 90
            self._say_contrast(),
            *["a blob in the middle does as well"] * (self.blob >= self.correlation),
        ]
        if self.steadiness is not None:
            kind = "steady" if self.steadiness > _STEADY else "unsteady"
            said.append(f"{kind} when the picture moves a little (likeness {self.steadiness:.2f})")
        if self.missing is not None:
            share = f"its sum is {100 * (1 - self.missing):.0f}% of what it should add up to"
            said.append(share + " (integrated gradients: more steps help)" * (abs(self.missing) > _SLACK))
        order = (1, 0) if self.verdict == "do not read as reasons" else (0, 1)
        return (*(said[i] for i in order), *said[2:])

    def _say_contrast(self) -> str:
        if self.contrast is None:
            return "not tested on another class" + f": {self.contrast_note}" * bool(self.contrast_note)
        what, size = self.contrast_target or "another class", f"{self.contrast:.2f}"
        if self.contrast > ALIKE:
            return f"much the same map ({size}) for another class" + f", {what}" * bool(self.contrast_target)
        if self.contrast > DISTINCT:
            return f"partly the same map ({size}) for {what}"
        return f"another map for {what} ({self.contrast_note or f'likeness {size}'})"

    def describe(self) -> str:
        """The verdict and its reasons in one line: `✓ supported: better than 97 of 100 random maps at ...; ...`."""
        return f"{self.sign} {self.verdict}: {'; '.join(self.sentences)}"

    def summary(self) -> dict[str, Any]:
        """The figures, the verdict and the sentences as plain values, for JSON."""
        return {**asdict(self), "verdict": self.verdict, "sentences": list(self.sentences)}


def describe_trust(trust: Trust | None) -> str:
    """The verdict and its reasons in one line. None: it was asked for, and could not be found out."""
    return trust.describe() if trust else _UNJUDGED


def name_verdict(trust: Trust | None) -> str:
    """The verdict alone, with its sign."""
    return f"{trust.sign} {trust.verdict}" if trust else _UNJUDGED


_UNJUDGED = "– not judged"
