"""Joined tallies: those of all layers of a scan while images are added, with their channels side by side.

A batch then takes a few operations, however many layers there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from vizcnn.scanning.statistics import BINS, BatchStatistics, find_bins
from vizcnn.scanning.tally import Tally, select_best


class JoinedTallies:
    """The tallies of L layers with C channels in all, over the images added so far. Arrays are as `Tally` has them,
    but the best images have channels first, and fill up with scores of minus infinity where there are fewer.

    layers: the channels of each layer, and the places of each channel, by the layer's name. top: the most images kept
    for each channel."""

    def __init__(self, layers: Mapping[str, tuple[int, int]], top: int) -> None:
        self.top = top
        self._widths = [channels for channels, _ in layers.values()]
        stops = [*accumulate(self._widths)]
        self._parts = {name: slice(stop - layers[name][0], stop) for name, stop in zip(layers, stops, strict=True)}
        self._sizes = torch.tensor([places for _, places in layers.values()])  # (L,)
        count = sum(self._widths)
        self._values = torch.full((count, top), -torch.inf, dtype=torch.float32)
        self._images = torch.zeros(count, top, dtype=torch.int64)
        self._places = torch.zeros(count, top, dtype=torch.int64)
        self._counted = torch.zeros(len(layers), 2, dtype=torch.int64)
        self._sums = torch.zeros(count, dtype=torch.float64)
        self._squares = torch.zeros(count, dtype=torch.float64)
        self._zeros = torch.zeros(count, dtype=torch.int64)
        self._lowest = torch.full((count,), torch.inf, dtype=torch.float32)
        self._highest = torch.full((count,), -torch.inf, dtype=torch.float32)
        self._histogram = torch.zeros(count, BINS, dtype=torch.int64)
        self._classes: dict[str, tuple[Tensor, Tensor]] = {}  # the sum (C,) of means, and the number (L,) of images

    def thresholds(self) -> dict[str, Tensor]:
        """The scores that an image must exceed to be among the best, (C,) for each layer."""
        last = self._values[:, -1].contiguous()
        return {name: last[part] for name, part in self._parts.items()}

    def add(self, batch: Mapping[str, BatchStatistics], numbers: Tensor, labels: Sequence[str | None]) -> None:
        """Count a batch. numbers, labels: of its images; the numbers are higher than all before."""
        seen = [batch[name] for name in self._parts]
        usable = torch.stack([one.usable for one in seen], 1)  # (B, L)
        highest, lowest, sums, squares, zeros = torch.cat([one.table for one in seen], 2)  # (B, C)
        means = sums.double()
        self._counted += torch.stack([usable.sum(0), (~usable).sum(0)], 1)
        self._sums += means.sum(0)
        self._squares += squares.double().sum(0)
        self._zeros += zeros.long().sum(0)
        self._lowest = torch.minimum(self._lowest, lowest.amin(0))
        self._highest = torch.maximum(self._highest, highest.amax(0))
        score = torch.cat([one.score for one in seen], 1)
        self._count_scores(score, highest.isfinite())
        self._count_classes(means, usable, labels)
        self._rank(seen, score, numbers)

    def _count_scores(self, score: Tensor, usable: Tensor) -> None:
        bins = torch.arange(score.shape[1]) * BINS + find_bins(score)
        self._histogram.view(-1).index_add_(0, bins.flatten(), usable.long().flatten())

    def _count_classes(self, sums: Tensor, usable: Tensor, labels: Sequence[str | None]) -> None:
        known = [label for label in dict.fromkeys(labels) if label is not None]
        if not known:
            return
        means = sums / self._spread(self._sizes)
        for label in known:
            members = [i for i, each in enumerate(labels) if each == label]
            total, images = self._classes.get(label, (torch.zeros_like(self._sums), torch.zeros_like(self._sizes)))
            self._classes[label] = total + means[members].sum(0), images + usable[members].sum(0)

    def _spread(self, values: Tensor) -> Tensor:
        """A value of each layer (L,) for each of its channels: (C,)."""
        return values.repeat_interleave(torch.tensor(self._widths))

    def _rank(self, seen: Sequence[BatchStatistics], score: Tensor, numbers: Tensor) -> None:
        if not any(len(one.at) for one in seen):
            return
        image = torch.cat([one.entrants // one.score.shape[1] for one in seen])
        channel = torch.cat([
            one.entrants % one.score.shape[1] + part.start for one, part in zip(seen, self._parts.values(), strict=True)
        ])  # fmt: skip
        entered = torch.zeros(len(self._values), dtype=torch.bool).index_fill_(0, channel, True)
        columns, row = entered.nonzero()[:, 0], entered.cumsum(0)[channel] - 1
        shape = (len(columns), len(numbers))
        value = torch.full(shape, -torch.inf, dtype=torch.float32)
        place = torch.zeros(shape, dtype=torch.int64)
        value[row, image], place[row, image] = score[image, channel], torch.cat([one.at for one in seen])
        new = (value, numbers.expand(shape), place)
        kept = (self._values, self._images, self._places)
        candidates = (torch.cat([old[columns], one], 1) for old, one in zip(kept, new, strict=True))
        for old, one in zip(kept, select_best(self.top, *candidates), strict=True):
            old[columns] = one

    def split(self) -> dict[str, Tally]:
        """The tally of each layer by name."""
        return {name: self._cut(i, part) for i, (name, part) in enumerate(self._parts.items())}

    def _cut(self, layer: int, part: slice) -> Tally:
        full = min(self.top, int(self._counted[layer, 0]))
        classes = {
            name: (total[part], int(images[layer])) for name, (total, images) in self._classes.items() if images[layer]
        }
        return Tally(
            top=self.top,
            size=int(self._sizes[layer]),
            values=self._values[part, :full].T,
            images=self._images[part, :full].T,
            places=self._places[part, :full].T,
            counted=self._counted[layer],
            sums=self._sums[part],
            squares=self._squares[part],
            zeros=self._zeros[part],
            lowest=self._lowest[part],
            highest=self._highest[part],
            histogram=self._histogram[part],
            classes=classes,
        )
