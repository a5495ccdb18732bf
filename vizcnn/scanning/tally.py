"""Tally: a layer's best images and statistics over the images so far. Tallies of neighbouring parts merge exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from vizcnn.scanning.study import PREFIX

_LOW = 2**32 - 1  # the lower half of 64 bits


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

    def arrays(self) -> dict[str, Tensor]:
        """All arrays by name, as an index stores them. The sums of classes, which can be many, are float32."""
        names = sorted(self.classes)
        sums = torch.stack([self.classes[n][0] for n in names]) if names else self.sums.new_empty(0, len(self.sums))
        images = torch.tensor([self.classes[n][1] for n in names], dtype=torch.int64)
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("top", "size", "classes")}
        return own | {"class_sums": sums.float(), "class_images": images, "histogram": self.histogram.int()}


def select_best(top: int, values: Tensor, images: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The `top` best of each row (C, K), best first. Of equal values the one that stands first is first."""
    order = torch.from_numpy(np.sort(_make_keys(values).numpy(), 1)[:, :top]) & _LOW  # a tenth of a stable sort's time
    return values.gather(1, order), images.gather(1, order), places.gather(1, order)


def _make_keys(values: Tensor) -> Tensor:
    """For float32 values (C, K) int64 of the opposite order, no two of them equal: the lower half is the column."""
    bits = (values + 0).view(torch.int32).long()  # adding 0 makes 0 of -0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return torch.arange(values.shape[1]) - (rising << 32)


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
    values, images, places = (torch.cat([getattr(t, name) for t in parts]).T for name in ("values", "images", "places"))
    values, images, places = (found.T for found in select_best(first.top, values, images, places))
    added = {
        name: torch.stack([getattr(t, name) for t in parts]).sum(0)
        for name in ("counted", "sums", "squares", "zeros", "histogram")
    }
    lowest, highest = torch.stack([t.lowest for t in parts]).amin(0), torch.stack([t.highest for t in parts]).amax(0)
    return Tally(
        first.top,
        first.size,
        values,
        images,
        places,
        lowest=lowest,
        highest=highest,
        **added,
        classes=_merge_classes(parts),
    )


def _merge_classes(parts: Sequence[Tally]) -> dict[str, tuple[Tensor, int]]:
    joined: dict[str, tuple[Tensor, int]] = {}
    for name, (total, images) in (entry for part in parts for entry in part.classes.items()):
        before, so_far = joined.get(name, (torch.zeros_like(total), 0))
        joined[name] = before + total, so_far + images
    return joined
