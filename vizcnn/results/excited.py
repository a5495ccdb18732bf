"""Excited: a channel with its exemplars, the photographs that excite it most."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, Pixels
from vizcnn.results.drawing import shorten
from vizcnn.results.masks import Mask
from vizcnn.results.photos import cut_out, shrink
from vizcnn.results.storing import AS_BYTES

_FEW = 0.005  # a share that is said to be none, or all but one


@dataclass(frozen=True)
class Exemplar:
    """A photograph that excites a channel.

    number: in the data set. value: what it is ranked by. at: row and column of the strongest unit; None without places.
    size: height and width of the photograph in px; seen, box: what the network and that unit see of it, in the same px.
    pixels, crop: float32 (h, w, C) in [0, 1], the photograph and its `part`, made smaller.
    mask: where the channel responds, for layers whose units see most of the image; None for others, where the box says
        it, and where the network was not at hand.
    """

    number: int
    name: str
    label: str | None
    value: float
    at: tuple[int, int] | None
    size: tuple[int, int]
    seen: Box
    box: Box | None
    pixels: Pixels = field(metadata=AS_BYTES)
    crop: Pixels
    mask: Mask | None = None

    @property
    def part(self) -> Box:
        """What the crop shows, in px: where the channel responds, or what the unit sees, or what the network sees."""
        return _choose_part(self.seen, self.box, self.mask)

    @property
    def has_part(self) -> bool:
        """Whether the part is worth a picture of its own."""
        return self.sees_beyond(self.part)

    def sees_beyond(self, box: Box) -> bool:
        """Whether the network sees more than a box."""
        whole, inner = asdict(self.seen), asdict(box)
        return any(abs(whole[edge] - inner[edge]) > 1e-6 * max(self.size) for edge in whole)

    @property
    def short_name(self) -> str:
        """The name without the folders of its data set."""
        return PurePosixPath(self.name).name

    def summary(self) -> dict[str, Any]:
        where = {"at": self.at, "box": self.box and asdict(self.box)}
        if self.mask:
            where["responds"] = {"level": self.mask.level, "box": asdict(self.mask.box)}
        return {"image": self.name, "number": self.number, "label": self.label, "value": self.value, **where}


def make_exemplar(
    number: int,
    name: str,
    label: str | None,
    value: float,
    at: tuple[int, int] | None,
    photo: Photo,
    seen: Box,
    box: Box | None,
    mask: Mask | None = None,
) -> Exemplar:
    """An exemplar of a photograph of any size."""
    name, label = _make_decodable(name), label and _make_decodable(label)
    small, crop = shrink(photo.held), shrink(cut_out(photo, _choose_part(seen, box, mask)))
    return Exemplar(number, name, label, value, at, photo.size, seen, box, small, crop, mask)


def _choose_part(seen: Box, box: Box | None, mask: Mask | None) -> Box:
    return mask.box if mask else box or seen


def _make_decodable(name: str) -> str:
    """The name as text: names of files and folders may hold bytes that are none."""
    return name.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class Excited:
    """A channel with its exemplars, best first.

    target: its name. statistics: numbers about all its activations, by name. beside: pictures to show at its left, each
    float32 (h, w, C) in [0, 1] with a title.
    """

    target: str
    exemplars: tuple[Exemplar, ...]
    statistics: dict[str, float]
    beside: tuple[tuple[str, Pixels], ...] = ()

    def describe(self) -> str:
        """The three best photographs with their values, in a sentence."""
        if not self.exemplars:
            return f"{self.target}: {self.describe_statistics()}"
        named = [
            f"{one.value:.3g} {shorten(one.short_name)}" + (f" ({shorten(one.label)})" if one.label else "")
            for one in self.exemplars[:3]
        ]
        return f"{self.target}: {', '.join(named)}"

    def describe_statistics(self) -> str:
        """What is worth saying of all its values: of a channel that is never below zero, as behind a ReLU, how often it
        is zero; of others, their range; of a dead one, that it is dead."""
        known = self.statistics
        if not self.exemplars:
            return f"no image excites it, its value is always {known['lowest']:.3g}"
        said = [f"mean {known['mean']:.3g}", f"standard deviation {known['sd']:.3g}"]
        if known["lowest"]:
            return ", ".join([*said, f"between {known['lowest']:.3g} and {known['highest']:.3g}"])
        share = known["share of zeros"]
        often = f"{share:.0%}" if share < 1 - _FEW else f"over {1 - _FEW:.1%}"
        zero = [f"zero in {often} of all cases"] if share >= _FEW else []
        return ", ".join([*said, f"at most {known['highest']:.3g}", *zero])

    def summary(self) -> dict[str, Any]:
        exemplars = [one.summary() for one in self.exemplars]
        return {"target": self.target, "statistics": self.statistics, "exemplars": exemplars}
