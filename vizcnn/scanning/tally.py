"""Tally: what is known of a layer's channels after some images. Tallies of neighbouring parts add up exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from vizcnn.scanning.glance import BINS, Glance, binned


@dataclass
class Tally:
    """A layer's C channels over all images counted so far.

    values: float32 (K, C), the best scores of each channel, best first; of equal ones the image of lower number.
    images, places: int64 (K, C), the number of the image, and where its largest activation is, as y * w + x.
    counted: int64 (2,): images, and images left out because the layer held NaN or infinity.
    sums, squares: float64 (C,), over all images and places; zeros: int64 (C,), activations that are exactly zero.
    lowest, highest: float32 (C,). histogram: int64 (C, BINS), the images' scores.
    classes: for each class, the sum of its images' means, float64 (C,), and how many these are.
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
        """What a score must exceed to be among the best: (C,)."""
        full = len(self.values) == self.top
        return self.values[-1] if full else torch.full_like(self.lowest, -torch.inf)

    @property
    def count(self) -> int:
        """Activations of each channel."""
        return int(self.counted[0]) * self.size

    @property
    def mean(self) -> Tensor:
        """Of all activations, float64 (C,)."""
        return self.sums / max(1, self.count)

    @property
    def variance(self) -> Tensor:
        """Of all activations, float64 (C,)."""
        spread = (self.squares / max(1, self.count) - self.mean.square()).clamp(min=0)
        return spread.where(self.lowest != self.highest, 0)

    @property
    def zero_share(self) -> Tensor:
        """Share of activations that are exactly zero, float64 (C,). 1: a dead channel."""
        return self.zeros.double() / max(1, self.count)

    def excited(self) -> Tensor:
        """Which of the best scores stand for a response, bool (K, C): not zero where a channel is never below zero, as
        behind a ReLU, and nothing where a channel is always the same."""
        never_below, constant = self.lowest == 0, (self.lowest == self.highest) & (self.count > 1)
        return ~constant & ~(never_below & (self.values == 0))

    def statistics(self, channel: int) -> dict[str, float]:
        """A channel's numbers by name."""
        numbers = {
            "mean": self.mean,
            "sd": self.variance.sqrt(),
            "lowest": self.lowest,
            "highest": self.highest,
            "share of zeros": self.zero_share,
        }
        return {name: float(values[channel]) for name, values in numbers.items()}

    def class_means(self) -> dict[str, Tensor]:
        """Mean activation over the images of each class, float64 (C,)."""
        return {name: total / images for name, (total, images) in sorted(self.classes.items())}

    def add(self, seen: Glance, numbers: Tensor, labels: Sequence[str | None]) -> None:
        """Count a batch whose images have these numbers, higher than all before."""
        kept = seen.kept.cpu()
        self.counted += torch.tensor([len(kept), len(numbers) - len(kept)])
        if not len(kept):
            return
        sums = seen.sums.cpu().double()  # (N, C)
        self.sums += sums.sum(0)
        self.squares += seen.squares.cpu().double().sum(0)
        self.zeros += seen.zeros.cpu().long().sum(0)
        self.lowest = torch.minimum(self.lowest, seen.lowest.amin(0).cpu())
        self.highest = torch.maximum(self.highest, seen.highest.amax(0).cpu())
        self._count_scores(seen.score.cpu())
        self._count_classes(sums / seen.places, [labels[i] for i in kept.tolist()])
        self._rank(seen, numbers[kept])

    def _count_scores(self, score: Tensor) -> None:
        bins = torch.arange(score.shape[1]) * BINS + binned(score)
        self.histogram += torch.bincount(bins.flatten(), minlength=self.histogram.numel()).view_as(self.histogram)

    def _count_classes(self, means: Tensor, labels: Sequence[str | None]) -> None:
        for label in dict.fromkeys(label for label in labels if label is not None):
            members = [i for i, each in enumerate(labels) if each == label]
            total, images = self.classes.get(label, (torch.zeros_like(self.sums), 0))
            self.classes[label] = total + means[members].sum(0), images + len(members)

    def _rank(self, seen: Glance, numbers: Tensor) -> None:
        image, channel = seen.entrants.cpu().T
        columns = channel.unique()
        if not len(columns):
            return
        shape = (len(numbers), len(columns))
        column = torch.searchsorted(columns, channel)
        score = torch.full(shape, -torch.inf, dtype=torch.float32)
        place = torch.zeros(shape, dtype=torch.int64)
        score[image, column], place[image, column] = seen.score.cpu()[image, channel], seen.at.cpu()
        best = _best(
            self.top,
            [(self.values[:, columns], self.images[:, columns], self.places[:, columns]),
             (score, numbers[:, None].expand(shape), place)],
        )  # fmt: skip
        if len(best[0]) > len(self.values):  # all channels have as many images, so all columns are new
            self.values, self.images, self.places = best
        else:
            self.values[:, columns], self.images[:, columns], self.places[:, columns] = best

    def arrays(self) -> dict[str, Tensor]:
        """Everything by name, as it is stored; sums of classes, which can be many, as float32."""
        names = sorted(self.classes)
        sums = torch.stack([self.classes[n][0] for n in names]) if names else self.sums.new_empty(0, len(self.sums))
        images = torch.tensor([self.classes[n][1] for n in names], dtype=torch.int64)
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("top", "size", "classes")}
        return own | {"class_sums": sums.float(), "class_images": images, "histogram": self.histogram.int()}


def _best(top: int, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The best rows of each column; of equal values the one of the earlier part, and there the earlier row."""
    values, images, places = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = values.sort(dim=0, descending=True, stable=True).indices[:top]
    return values.gather(0, order), images.gather(0, order), places.gather(0, order)


def empty(channels: int, size: int, top: int) -> Tally:
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


def restored(top: int, size: int, arrays: Mapping[str, Tensor], classes: Sequence[str]) -> Tally:
    """The tally of stored arrays. classes: the names of those that the layer has sums of, sorted."""
    own = {name: value for name, value in arrays.items() if not name.startswith("class_")}
    own["histogram"] = own["histogram"].long()
    sums = zip(arrays["class_sums"].double(), arrays["class_images"].tolist(), strict=True)
    return Tally(top, size, **own, classes=dict(zip(classes, sums, strict=True)))


def merged(tallies: Iterable[Tally]) -> Tally:
    """One tally of parts, given in the order of their images."""
    parts = list(tallies)
    first = parts[0]
    best = _best(first.top, [(t.values, t.images, t.places) for t in parts])
    added = {
        name: torch.stack([getattr(t, name) for t in parts]).sum(0)
        for name in ("counted", "sums", "squares", "zeros", "histogram")
    }
    lowest, highest = torch.stack([t.lowest for t in parts]).amin(0), torch.stack([t.highest for t in parts]).amax(0)
    return Tally(first.top, first.size, *best, lowest=lowest, highest=highest, **added, classes=_joined(parts))


def _joined(parts: Sequence[Tally]) -> dict[str, tuple[Tensor, int]]:
    joined: dict[str, tuple[Tensor, int]] = {}
    for name, (total, images) in (entry for part in parts for entry in part.classes.items()):
        before, so_far = joined.get(name, (torch.zeros_like(total), 0))
        joined[name] = before + total, so_far + images
    return joined
