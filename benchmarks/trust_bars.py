"""What the benchmark of trust found, as rows, a table and bars: see `trust.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from vizcnn.results.trust import Trust

METHODS = ("occlusion", "grad-cam", "integrated-gradients", "smoothgrad", "gradient", "guided-backprop")
EDGES, MIDDLE, FIELD = "edges (Sobel)", "blob in the middle", "random field"
PLANTED = "planted"


@dataclass(frozen=True)
class Row:
    """A map and what was said of it. is_wrong: it is another class's. trust: None where the method refuses. again: need
    with other halves and other null maps."""

    network: str
    image: str
    map: str
    is_wrong: bool
    trust: Trust | None
    again: float | None = None

    @property
    def name(self) -> str:
        return self.map + " of a wrong class" * self.is_wrong

    def reaches(self, need: float) -> bool:
        return self.trust is not None and self.trust.need >= need

    @property
    def is_supported(self) -> bool:
        return self.trust is not None and self.trust.verdict == "supported"

    @property
    def is_class_free(self) -> bool:
        return self.trust is not None and self.trust.verdict == "do not read as reasons"

    def summary(self) -> dict[str, Any]:
        what = {"network": self.network, "image": self.image, "map": self.map, "is_wrong": self.is_wrong}
        return {**what, "again": self.again, "trust": self.trust and self.trust.summary()}


HEAD = "| network | map | maps | refused | need, median | at least 90 | at least 95 | supported | not reasons |"


def measure_share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> float:
    return sum(map(holds, rows)) / max(len(rows), 1)


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each kind of map of one network; shares are of all maps, a refused one among them."""
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        needs = [row.trust.need for row in own if row.trust]
        middle = f"{median(needs):.0f}" if needs else "-"
        columns = (lambda row: row.reaches(90), lambda row: row.reaches(95), lambda row: row.is_supported)
        shares = [f"{measure_share(own, holds):.0%}" for holds in (*columns, lambda row: row.is_class_free)]
        cells = [own[0].network, name, str(len(own)), str(len(own) - len(needs)), middle, *shares]
        yield f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Bar:
    """What a share of the maps must keep. least: whether the bound is the least share, else the most.

    rows: of which maps; by_network: the share for each network."""

    what: str
    bound: float
    least: bool
    share: float
    count: int
    by_network: dict[str, float]

    @property
    def is_kept(self) -> bool:
        return self.share >= self.bound if self.least else self.share <= self.bound

    def format(self) -> str:
        each = ", ".join(f"{name} {share:.0%}" for name, share in self.by_network.items())
        bound = f"{'at least' if self.least else 'at most'} {self.bound:.0%}"
        kept = "kept" if self.is_kept else "**not kept**"
        return f"| {self.what} | {bound} | {self.share:.1%} of {self.count} | {kept} | {each} |"


def check_bars(rows: Sequence[Row]) -> list[Bar]:
    """What the figures must keep, with what they reach; without those of which there are no maps.

    Bars of photographs are over all networks but the planted one. A map that the method refuses reaches nothing; of
    guided backprop it does not count, as that refuses whole networks."""

    def take(name: str, is_planted: bool = False) -> list[Row]:
        return [row for row in rows if row.name == name and (row.network == PLANTED) == is_planted]

    def make(what: str, bound: float, least: bool, own: list[Row], holds: Callable[[Row], bool]) -> Bar:
        networks = dict.fromkeys(row.network for row in own)
        shares = {name: measure_share([row for row in own if row.network == name], holds) for name in networks}
        return Bar(what, bound, least, measure_share(own, holds), len(own), shares)

    again = [row for row in rows if row.again is not None and row.map in METHODS]
    wrong = "guided-backprop of a wrong class"
    bars = [
        make("random fields: need at least 90", 0.10, False, take(FIELD), lambda row: row.reaches(90)),
        make(f"{EDGES}: supported", 0, False, take(EDGES), lambda row: row.is_supported),
        make(f"{MIDDLE}: supported", 0, False, take(MIDDLE), lambda row: row.is_supported),
        make(
            f"{wrong}: supported", 0.05, False, [row for row in take(wrong) if row.trust], lambda row: row.is_supported
        ),
        make("occlusion: supported", 0.95, True, take("occlusion"), lambda row: row.is_supported),
        *(
            make(f"planted, {name}: need at least 95", 0.95, True, take(name, True), lambda row: row.reaches(95))
            for name in ("occlusion", "integrated-gradients")
        ),
        make("planted, grad-cam: need at least 90", 0.10, False, take("grad-cam", True), lambda row: row.reaches(90)),
        make("two seeds: need on the same side of 90", 0.85, True, again, _is_repeated),
    ]
    return [bar for bar in bars if bar.count]


def _is_repeated(row: Row) -> bool:
    return row.trust is not None and row.again is not None and row.reaches(90) == (row.again >= 90)


def describe_shift(rows: Sequence[Row]) -> str:
    """By how much need moves with other halves and other null maps, over maps of the methods that were judged again."""
    shifts = [
        abs(row.trust.need - row.again) for row in rows if row.map in METHODS and row.trust and row.again is not None
    ]
    if not shifts:
        return "Nothing was judged again."
    middle, most = np.quantile(shifts, (0.5, 0.9))
    return (
        f"With other halves and null maps need moves by {middle:.0f} (median; of one map in ten by {most:.0f} or more)."
    )
