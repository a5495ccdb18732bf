"""UnitSum: one unit as a sum of products, and what the picture of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcnn.results.panels import Scene, format_number

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Addend:
    """What one path adds to a unit: scale * sum of patch * weights.

    layer: that has the weights; "" for what is added as it is. norm: that is multiplied in, "" for none. reads: what
    each of the I channels that it reads is called. patch: float64 (I, rows, columns), zero beyond the edges. inside:
    bool (rows, columns), which places are not beyond them. weights: like the patch, as the network has them; None for
    what is added as it is."""

    layer: str
    norm: str
    reads: tuple[str, ...]
    patch: Numbers
    inside: npt.NDArray[np.bool_]
    weights: Numbers | None
    scale: float

    @property
    def products(self) -> Numbers:
        """(I, rows, columns)."""
        return self.patch if self.weights is None else self.patch * self.weights

    @property
    def sums(self) -> Numbers:
        """The sum of each channel's products, (I,)."""
        return np.asarray(self.products.sum((1, 2)))

    @property
    def value(self) -> float:
        return self.scale * float(self.sums.sum())

    @property
    def name(self) -> str:
        return self.layer or "shortcut"

    def describe(self) -> str:
        """What adds this, in words."""
        if self.weights is None:
            return f"{self.reads[0]}, added as it is" + (f", times {self.scale:.4g}" if self.scale != 1 else "")
        scaled = f" of {format_number(float(self.sums.sum()))} x {self.scale:.4g}" if self.scale != 1 else ""
        norm = f" ({self.norm})" if self.norm else ""
        return f"{self.layer}: {self.products.size:,} products{scaled}{norm}"

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
class UnitSum:
    """One unit, number by number.

    name: as one asks for it, `conv2:7@3,4`. image: the photograph's name. scene: the photograph, with a mark for what
    of it the unit can see, where that is known. addends: the path with the most weights first. bias: what is added
    beside, norms included. activation: its name, "" for none. before, after: in front of it and behind. said: what the
    network gives. whole: the only map that the first path reads, (h, w), where it is small: the kernel slides over it,
    with `stride` and `padding` (down, across); None else."""

    name: str
    image: str
    scene: Scene
    addends: tuple[Addend, ...]
    bias: float
    activation: str
    before: float
    after: float
    said: float
    place: tuple[int, int]
    whole: Numbers | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

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
            "network": self.said,
        }
