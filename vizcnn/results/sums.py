"""UnitSum: one unit as a sum of products, and what the picture of it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcnn.results.panels import Scene, format_number

Numbers = npt.NDArray[np.float64]

LONGEST = 8
"""The side, in px, of the largest map over which a kernel is drawn sliding: one on paper."""

_MOST_PLACES = 36  # of the kernel on it


_ROUNDING = 1e-6  # of what is added up: so much rounding in single precision may leave of a sum that is zero


def write_sum(value: float, size: float) -> str:
    """A sum in three digits, 0 where it is what rounding leaves. size: of all that is added up, without signs."""
    return format_number(value if abs(value) > _ROUNDING * size else 0.0)


@dataclass(frozen=True)
class Addend:
    """What one path adds to a unit: scale * sum of patch * weights.

    layer: that has the weights; "" for what is added as it is. norm: that is multiplied in, "" for none. reads: what
    each of the I channels that it reads is called. patch: float64 (I, rows, columns), zero beyond the edges. inside:
    bool (rows, columns), which places are not beyond them. weights: like the patch, as the network has them; None for
    what is added as it is. whole: the map that it reads, (h, w), where that is small enough for paper and has a single
    channel, and the kernel no gaps; None else. stride, padding: of the kernel on it, down and across."""

    layer: str
    norm: str
    reads: tuple[str, ...]
    patch: Numbers
    inside: npt.NDArray[np.bool_]
    weights: Numbers | None
    scale: float
    whole: Numbers | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def products(self) -> Numbers:
        """(I, rows, columns)."""
        return self.patch if self.weights is None else self.patch * self.weights

    @property
    def sums(self) -> Numbers:
        """The sum of each channel's products, (I,)."""
        return np.asarray(self.products.sum((1, 2)))

    @property
    def sizes(self) -> Numbers:
        """The same of the products without their signs, (I,)."""
        return np.asarray(np.abs(self.products).sum((1, 2)))

    @property
    def value(self) -> float:
        return self.scale * float(self.sums.sum())

    @property
    def name(self) -> str:
        return self.layer or "shortcut"

    @property
    def slides(self) -> bool:
        """Whether the kernel can be drawn at all its places on the map that it reads."""
        return self.whole is not None and 1 < self.slide().size <= _MOST_PLACES

    def slide(self) -> Numbers:
        """The sum of products at each place of the kernel on the whole map, (down, across)."""
        assert self.whole is not None
        assert self.weights is not None
        padded = np.pad(self.whole, [(padding, padding) for padding in self.padding])
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.weights.shape[1:])  # (h, w, rows, columns)
        down, across = self.stride
        return np.asarray((windows[::down, ::across] * self.weights[0]).sum((2, 3)))

    def describe(self) -> str:
        """What adds this, in words."""
        norm = f" of {self.norm}" if self.norm else ""
        times = f", times {self.scale:.4g}{norm}" if self.norm or self.scale != 1 else ""
        if self.weights is None:
            return f"{self.reads[0]}, added as it is{times}"
        count = self.products.size
        if not times:
            return f"{self.layer}: {count:,} products" if count > 1 else f"{self.layer}: one product"
        add_up = f"{count:,} products add up to" if count > 1 else "one product is"
        return f"{self.layer}: {add_up} {write_sum(self.sums.sum(), self.sizes.sum())}{times}"

    def summary(self) -> dict[str, Any]:
        channels = [{"reads": name, "sum": float(each)} for name, each in zip(self.reads, self.sums, strict=True)]
        return {
            "name": self.name,
            "norm": self.norm,
            "scale": self.scale,
            "value": self.value,
            "channels": channels,
        }


@dataclass(frozen=True)
class Line:
    """A line of what is added up. sign: `+`, `-`, `=` or "". number: as it is written, without a sign that `sign` says.
    is_result: whether this is what the unit comes to."""

    sign: str
    number: str
    words: str
    is_result: bool = False


@dataclass(frozen=True)
class UnitSum:
    """One unit, number by number.

    name: as one asks for it, `conv2:7@3,4`. image: the photograph's name. scene: the photograph, with a mark for what
    of it the unit can see, where that is known. place: its row and column. addends: the path with the most weights
    first. bias: what is added beside, norms included. activation: its name, "" for none. before, after: in front of it
    and behind. network: what the network itself gives."""

    name: str
    image: str
    scene: Scene
    place: tuple[int, int]
    addends: tuple[Addend, ...]
    bias: float
    activation: str
    before: float
    after: float
    network: float

    @property
    def slides(self) -> bool:
        """Whether the kernel can be drawn at all places."""
        return bool(self.addends) and self.addends[0].slides

    @property
    def title(self) -> str:
        """The unit, and what of the network lies behind its weights: `conv1:4@22,12 behind bn1 and relu`."""
        behind = [name for name in (self.addends[0].norm if self.addends else "",) if name]
        behind += ["the shortcut"] if len(self.addends) > 1 else []
        behind += [self.activation] if self.activation else []
        words = " and ".join([*([", ".join(behind[:-1])] if behind[:-1] else []), *behind[-1:]])
        return f"{self.name} behind {words}" if words else self.name

    def list_lines(self) -> Iterator[Line]:
        """All that is added up, what it comes to, and what the network gives."""
        sizes = [abs(addend.scale) * float(addend.sizes.sum()) for addend in self.addends]
        for i, (addend, size) in enumerate(zip(self.addends, sizes, strict=True)):
            yield _add(addend.value, size, addend.describe(), follows=i > 0)
        norms = " and what the norms add" if any(addend.norm for addend in self.addends) else ""
        yield _add(self.bias, abs(self.bias), f"bias{norms}", follows=True)
        yield Line("=", write_sum(self.before, sum(sizes) + abs(self.bias)), "in all", not self.activation)
        if self.activation:
            yield Line("=", format_number(self.after), f"behind {self.activation}", True)
        yield Line("", format_number(self.network), "is what the network itself gives")

    def summary(self) -> dict[str, Any]:
        return {
            "unit": self.name,
            "image": self.image,
            "place": list(self.place),
            "addends": [addend.summary() for addend in self.addends],
            "bias": self.bias,
            "activation": self.activation,
            "before": self.before,
            "after": self.after,
            "network": self.network,
        }


def _add(value: float, size: float, words: str, *, follows: bool) -> Line:
    """The line of a number that is added, see `write_sum`. follows: whether there are others before it."""
    if not follows:
        return Line("", write_sum(value, size), words)
    return Line("-" if value < 0 else "+", write_sum(abs(value), size), words)
