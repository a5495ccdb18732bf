"""Exemplars: the photographs that excite each channel most, with what the winning unit sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Pixels
from vizcnn.results.base import Result
from vizcnn.results.excited import Excited, Exemplar
from vizcnn.results.gallery import Gallery
from vizcnn.results.masks import Mask
from vizcnn.results.records import make_even, name_edges

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKED_BY = {"max": "the maximum over positions", "mean": "the mean over positions", "sum": "the sum over positions"}
"""What the values of exemplars are, for each way to rank images."""


@dataclass(frozen=True)
class Gaps:
    """What photographs that were chosen from a data set do not show.

    images: how many it has. unreadable: the numbers of those that could not be read, each with the reason.
    not_finite: per layer, how many gave NaN or infinity. kept: per layer, how many a scan keeps for a channel, where it
    may have seen more. asked: how many were to be shown. shards: of a scan, how many are missing, and of how many.
    """

    images: int
    unreadable: tuple[tuple[int, str], ...]
    not_finite: Mapping[str, int]
    kept: Mapping[str, int]
    asked: int
    shards: tuple[int, int] = (0, 0)

    def describe(self) -> Iterator[str]:
        """A sentence for each gap."""
        if self.unreadable:
            number, reason = self.unreadable[0]
            yield f"{len(self.unreadable)} of {self.images} images could not be read, the first: {number}, {reason}"
        for layer, left_out in self.not_finite.items():
            if left_out:
                yield f"{left_out} images gave NaN or infinity in layer {layer!r} and were left out"
            if self.kept.get(layer, self.asked) < self.asked:
                yield f"the scan kept {self.kept[layer]} images for each channel of layer {layer!r}, not {self.asked}"
        missing, of = self.shards
        if missing:
            yield f"the scan is not complete: {missing} of {of} shards are missing"


def draw_kernel(kernel: Pixels) -> Pixels:
    """A kernel (h, w, C) as a picture: zero is mid-grey, and its largest magnitude black or white."""
    end = max(float(np.abs(kernel).max()), 1e-12)
    return 0.5 + kernel / np.float32(2 * end)


@dataclass(frozen=True)
class Exemplars(Result):
    """For each channel the photographs that excite it most. ranked_by: what the values are. partial: after Ctrl-C, the
    photographs are all there and what stands beside them is not."""

    parts: ClassVar[tuple[type, ...]] = (Excited, Exemplar, Box, Mask)

    rows: tuple[Excited, ...]
    ranked_by: str
    notes: tuple[str, ...] = ()
    partial: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """values: float32 (R, K), NaN where a channel has fewer than K. images: int64 (R, K), numbers, -1 likewise.
        places: int64 (R, K, 2), row and column in the layer, -1 where there are none. boxes: float64 (R, K, 4), top,
        left, bottom, right in px of the photograph, NaN where there are none. `crop.R.K`, `beside.R.K`: (h, w, C).

        Where units see most of an image: levels: float64 (R, K), what a channel's map must exceed to be in the mask.
        regions: float64 (R, K, 4), the box around the strongest part of the mask. `map.R.K`: float32 (h, w), the map.
        """
        count = max(len(row.exemplars) for row in self.rows)
        shape = (len(self.rows), count)
        values, images = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int64)
        places, boxes = np.full((*shape, 2), -1, np.int64), np.full((*shape, 4), np.nan)
        levels, regions = np.full(shape, np.nan), np.full((*shape, 4), np.nan)
        for r, k, one in ((r, k, one) for r, row in enumerate(self.rows) for k, one in enumerate(row.exemplars)):
            values[r, k], images[r, k] = one.value, one.number
            places[r, k] = one.at or (-1, -1)
            boxes[r, k] = list(asdict(one.box).values()) if one.box else np.nan
            if one.mask:
                levels[r, k], regions[r, k] = one.mask.level, list(asdict(one.mask.box).values())
        found: dict[str, npt.NDArray[Any]] = {"values": values, "images": images, "places": places, "boxes": boxes}
        if maps := self._maps():
            found |= {"levels": levels, "regions": regions, **maps}
        return found | self._pictures()

    def _maps(self) -> dict[str, npt.NDArray[Any]]:
        each = ((r, k, one.mask) for r, row in enumerate(self.rows) for k, one in enumerate(row.exemplars))
        return {f"map.{r}.{k}": mask.activations for r, k, mask in each if mask}

    def _pictures(self) -> dict[str, npt.NDArray[Any]]:
        crops = {f"crop.{r}.{k}": one.crop for r, row in enumerate(self.rows) for k, one in enumerate(row.exemplars)}
        return crops | {f"beside.{r}.{k}": p for r, row in enumerate(self.rows) for k, (_, p) in enumerate(row.beside)}

    def summary(self) -> dict[str, Any]:
        rows = [row.summary() for row in self.rows]
        return {"ranked_by": self.ranked_by, "partial": self.partial, "rows": rows, "notes": list(self.notes)}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each photograph of each channel. `order`: 1 for the best. `image_number`: in the data set. `row` and
        `column`: of the strongest unit in its layer. The box is what that unit sees, in px of the photograph;
        `responds_top` and so on bound the part where the channel responds, where that was looked at."""
        return make_even(
            {
                "target": row["target"],
                "order": order,
                "image": one["image"],
                "image_number": one.get("number"),  # which a .json saved before there were records lacks
                "label": one["label"],
                "value": one["value"],
                **dict(zip(("row", "column"), one["at"] or (None, None), strict=True)),
                **name_edges(one["box"]),
                **(name_edges(one["responds"]["box"], "responds") if "responds" in one else {}),
            }
            for row in summary["rows"]
            for order, one in enumerate(row["exemplars"], 1)
        )

    def describe(self) -> str:
        return "\n".join([*(row.describe() for row in self.rows), *self.notes])

    @property
    def pages(self) -> int:
        return len(self._lay_out().pages)

    def figure(self, page: int = 1) -> Figure:
        """Some rows of all, as many as a page holds. Each has a channel's photographs, with a box around what the
        strongest unit sees, or dimmed where the channel does not respond, and below them that part, enlarged."""
        return self._lay_out().draw(page)

    def _lay_out(self) -> Gallery:
        return Gallery(self.rows, self.ranked_by, self.small_print)
