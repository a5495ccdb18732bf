"""Tally: a layer's best images and statistics over the images so far. Tallies of neighbouring parts merge exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from vizcnn.scanning.statistics import BINS, BatchStatistics, find_bins
from vizcnn.scanning.study import PREFIX


@dataclass
class Tally:
    """The best images and the statistics of a layer's C channels, over all images counted so far.

    top: the most images kept for each channel. size: the number of places of a channel.
    values: float32 (K, C), the best scores of each channel, best first. Of equal ones the lower number is first.
    images, places: int64 (K, C), the number of each best image, and where its largest activation is, as y * w + x.
    counted: int64 (2,), the number of images, and of those left out because the layer held NaN or infinity.
    sums, squares: float64 (C,), over all images and places. zeros: int64 (C,), how many activations are exactly zero.
    lowest, highest: float32 (C,). histogram: int64 (C, BINS), how many images' scores lie in each bin.
    classes: for each class, the sum of its images' mean activations, float64 (C,), and the number of these images.
    """

    top: int
    size: int
    values: Tensor
    images: Tensor
    places: Tensor
    counted: Tensor
    sums: Tensor
    squares: Tensor
    zeros: Tensor
    lowest: Tensor
    highest: Tensor
    histogram: Tensor
    classes: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    @property
    def threshold(self) -> Tensor:
        """The scores that an image must exceed to be among the best: (C,)."""
        full = len(self.values) == self.top
        return self.values[-1] if full else torch.full_like(self.lowest, -torch.inf)

    @property
    def count(self) -> int:
        """The number of activations of each channel."""
        return int(self.counted[0]) * self.size

    @property
    def mean(self) -> Tensor:
        """The mean of all activations, float64 (C,)."""
        return self.sums / max(1, self.count)

    @property
    def variance(self) -> Tensor:
        """The variance of all activations, float64 (C,)."""
        spread = (self.squares / max(1, self.count) - self.mean.square()).clamp(min=0)
        return spread.where(self.lowest != self.highest, 0)

    @property
    def zero_share(self) -> Tensor:
        """The share of activations that are exactly zero, float64 (C,). A dead channel has 1."""
        return self.zeros.double() / max(1, self.count)

    def excited(self) -> Tensor:
        """Which of the best scores stand for a response of the channel, bool (K, C).

        A score of zero does not where a channel is never below zero, as behind a ReLU; no score does where a channel is
        constant."""
        never_below, constant = self.lowest == 0, (self.lowest == self.highest) & (self.count > 1)
        return ~constant & ~(never_below & (self.values == 0))

    def statistics(self, channel: int) -> dict[str, float]:
        """A channel's statistics by name."""
        numbers = {
            "mean": self.mean,
            "sd": self.variance.sqrt(),
            "lowest": self.lowest,
            "highest": self.highest,
            "share of zeros": self.zero_share,
        }
        return {name: float(values[channel]) for name, values in numbers.items()}

    def class_means(self) -> dict[str, Tensor]:
        """For each class, the mean activation over its images, float64 (C,)."""
        return {name: total / images for name, (total, images) in sorted(self.classes.items())}

    def add(self, batch: BatchStatistics, numbers: Tensor, labels: Sequence[str | None]) -> None:
        """Count a batch. numbers, labels: of its images; the numbers are higher than all before."""
        kept = batch.kept
        self.counted += torch.tensor([len(kept), len(numbers) - len(kept)])
        if not len(kept):
            return
        sums = batch.sums.double()  # (N, C)
        self.sums += sums.sum(0)
        self.squares += batch.squares.double().sum(0)
        self.zeros += batch.zeros.long().sum(0)
        self.lowest = torch.minimum(self.lowest, batch.lowest.amin(0))
        self.highest = torch.maximum(self.highest, batch.highest.amax(0))
        self._count_scores(batch.score)
        self._count_classes(sums / batch.places, [labels[i] for i in kept.tolist()])
        self._rank(batch, numbers[kept])

    def _count_scores(self, score: Tensor) -> None:
        bins = torch.arange(score.shape[1]) * BINS + find_bins(score)
        self.histogram += torch.bincount(bins.flatten(), minlength=self.histogram.numel()).view_as(self.histogram)

    def _count_classes(self, means: Tensor, labels: Sequence[str | None]) -> None:
        for label in dict.fromkeys(label for label in labels if label is not None):
            members = [i for i, each in enumerate(labels) if each == label]
            total, images = self.classes.get(label, (torch.zeros_like(self.sums), 0))
            self.classes[label] = total + means[members].sum(0), images + len(members)

    def _rank(self, batch: BatchStatistics, numbers: Tensor) -> None:
        image, channel = batch.entrants.T
        columns = channel.unique()
        if not len(columns):
            return
        shape = (len(numbers), len(columns))
        column = torch.searchsorted(columns, channel)
        score = torch.full(shape, -torch.inf, dtype=torch.float32)
        place = torch.zeros(shape, dtype=torch.int64)
        score[image, column], place[image, column] = batch.score[image, channel], batch.at
        best = _select_best(
            self.top,
            [(self.values[:, columns], self.images[:, columns], self.places[:, columns]),
             (score, numbers[:, None].expand(shape), place)],
        )  # fmt: skip
        if len(best[0]) > len(self.values):  # all channels have as many images, so all columns are new
            self.values, self.images, self.places = best
        else:
            self.values[:, columns], self.images[:, columns], self.places[:, columns] = best

    def arrays(self) -> dict[str, Tensor]:
        """All arrays by name, as an index stores them. The sums of classes, which can be many, are float32."""
        names = sorted(self.classes)
        sums = torch.stack([self.classes[n][0] for n in names]) if names else self.sums.new_empty(0, len(self.sums))
        images = torch.tensor([self.classes[n][1] for n in names], dtype=torch.int64)
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("top", "size", "classes")}
        return own | {"class_sums": sums.float(), "class_images": images, "histogram": self.histogram.int()}


def _select_best(top: int, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The `top` best rows of each column, best first. Of equal values the one of the earlier part or row is first."""
    values, images, places = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = values.sort(dim=0, descending=True, stable=True).indices[:top]
    return values.gather(0, order), images.gather(0, order), places.gather(0, order)


def make_tally(channels: int, size: int, top: int) -> Tally:
    """The tally of no images, for a layer whose channels have `size` places."""
    none, zero = (0, channels), torch.zeros(channels, dtype=torch.float64)
    return Tally(
        top=top,
        size=size,
        values=torch.empty(none, dtype=torch.float32),
        images=torch.empty(none, dtype=torch.int64),
        places=torch.empty(none, dtype=torch.int64),
        counted=torch.zeros(2, dtype=torch.int64),
        sums=zero,
        squares=zero.clone(),
        zeros=torch.zeros(channels, dtype=torch.int64),
        lowest=torch.full((channels,), torch.inf, dtype=torch.float32),
        highest=torch.full((channels,), -torch.inf, dtype=torch.float32),
        histogram=torch.zeros(channels, BINS, dtype=torch.int64),
    )


def restore_tally(top: int, size: int, arrays: Mapping[str, Tensor], classes: Sequence[str]) -> Tally:
    """The tally that was stored as these arrays. classes: the sorted names of the classes that it has sums of."""
    own = {name: value for name, value in arrays.items() if not name.startswith(("class_", PREFIX))}
    own["histogram"] = own["histogram"].long()
    sums = zip(arrays["class_sums"].double(), arrays["class_images"].tolist(), strict=True)
    return Tally(top, size, **own, classes=dict(zip(classes, sums, strict=True)))


def merge_tallies(tallies: Iterable[Tally]) -> Tally:
    """One tally for several parts of the images, given in the order of their images."""
    parts = list(tallies)
    first = parts[0]
    best = _select_best(first.top, [(t.values, t.images, t.places) for t in parts])
    added = {
        name: torch.stack([getattr(t, name) for t in parts]).sum(0)
        for name in ("counted", "sums", "squares", "zeros", "histogram")
    }
    lowest, highest = torch.stack([t.lowest for t in parts]).amin(0), torch.stack([t.highest for t in parts]).amax(0)
    return Tally(first.top, first.size, *best, lowest=lowest, highest=highest, **added, classes=_merge_classes(parts))


def _merge_classes(parts: Sequence[Tally]) -> dict[str, tuple[Tensor, int]]:
    joined: dict[str, tuple[Tensor, int]] = {}
    for name, (total, images) in (entry for part in parts for entry in part.classes.items()):
        before, so_far = joined.get(name, (torch.zeros_like(total), 0))
        joined[name] = before + total, so_far + images
    return joined
