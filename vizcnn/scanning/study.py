"""Study: what a scan also keeps for an atlas, if it is asked to: all activations counted in bins, what the network
answers to each image, and what each channel gives for a sample of images. All of it from the same one pass.

Studies of neighbouring parts of the images merge exactly, as tallies do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vizcnn.errors import ParameterError
from vizcnn.models.head import Head, Makers, find_head, to_probabilities
from vizcnn.models.model import Model
from vizcnn.models.outputs import find_output
from vizcnn.scanning.statistics import BINS, BatchStatistics, find_bins

PREFIX = "study_"
"""Of the names of a study's arrays among those of a layer in a shard."""

_NUMBERED = re.compile(r"(?P<name>.*) \(#(?P<number>[0-9]{1,9})\)", re.DOTALL)

_AT_ONCE = 2**22  # activations that are sorted into bins at a time, 8 bytes each


@dataclass(frozen=True)
class Study:
    """What a scan keeps for an atlas beside its tallies.

    sample: of how many images, evenly spread over the data set, each channel's mean and maximum are kept. best: how
    many classes are kept of each image's answer. Raises ParameterError."""

    sample: int = 2000
    best: int = 5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "sample" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ParameterError(f"{name} of a study is a whole number from {least} on, got {value!r}")


@dataclass(frozen=True)
class StudySettings:
    """A study of a data set of so many images with a network of this head, see `vizcnn.models.head`."""

    sample: int
    best: int
    images: int
    head: Head

    def holds(self, number: int) -> bool:
        """Whether an image is in the sample: of N images with s in the sample, every N/s-th."""
        return (number + 1) * self.sample // self.images > number * self.sample // self.images or (
            self.sample >= self.images
        )


@dataclass(frozen=True)
class LayerStudy:
    """What a study has found in a layer of C channels.

    bins: int64 (C, BINS), how many of all activations lie in each bin, see `statistics.compute_bin_edges`.
    numbers: int64 (n,), the images of the sample, ascending. means, highest: float16 (n, C), of each over its places.
    """

    bins: Tensor
    numbers: Tensor
    means: Tensor
    highest: Tensor

    def arrays(self) -> dict[str, Tensor]:
        """All arrays by the names that a shard has for them."""
        return {f"{PREFIX}{name}": array for name, array in vars(self).items()}


@dataclass(frozen=True)
class Answers:
    """What the network answers to n images.

    numbers: int64 (n,), of the images, ascending. classes: int32 (n, K), those with the largest outputs, largest first.
    outputs, probabilities: float32 (n, K), of these classes; probabilities are NaN where the outputs tell none."""

    numbers: Tensor
    classes: Tensor
    outputs: Tensor
    probabilities: Tensor


def make_empty_study(channels: int) -> LayerStudy:
    """The study of no images, for a layer of so many channels."""
    none = torch.zeros(0, channels, dtype=torch.float16)
    return LayerStudy(
        torch.zeros(channels, BINS, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), none, none.clone()
    )


def settle_study(model: Model, study: Study, size: tuple[int, int], images: int) -> StudySettings:
    """The settings of a study. size: height and width of the inputs. images: how many there are."""
    with torch.no_grad(), Makers() as makers:
        output = find_output(model(model.grey(size)), model.output, 1)
        head = find_head(output, model.head, makers)
    return StudySettings(min(study.sample, images), study.best, images, head)


def count_bins(output: Tensor, usable: Tensor) -> Tensor:
    """How many activations of each channel lie in each bin, int64 (C, BINS).

    output: (B, C, h, w) or (B, C). usable: bool (B,), the images that count."""
    maps = (
        output.detach()[usable.to(output.device)].float().flatten(2) if output.dim() > 2 else output[usable][:, :, None]
    )
    channels = maps.shape[1]
    counts = torch.zeros(channels * BINS, dtype=torch.int64)
    first = torch.arange(channels)[None, :, None] * BINS
    for part in maps.cpu().float().split(max(1, _AT_ONCE // max(1, maps[:1].numel()))):
        counts += torch.bincount((find_bins(part) + first).flatten(), minlength=len(counts))
    return counts.view(channels, BINS)


def make_layer_study(batch: BatchStatistics, bins: Tensor, numbers: Tensor, settings: StudySettings) -> LayerStudy:
    """The study of a layer for one batch. bins: from `count_bins`. numbers: of the batch's images."""
    chosen = batch.usable & torch.tensor([settings.holds(number) for number in numbers.tolist()], dtype=torch.bool)
    means = batch.sums[chosen] / batch.places
    return LayerStudy(bins, numbers[chosen], to_half(means), to_half(batch.highest[chosen]))


def to_half(values: Tensor) -> Tensor:
    """Values as float16, those beyond its range at its ends."""
    most = torch.finfo(torch.float16).max
    return values.clamp(-most, most).half()


def make_answers(output: object, numbers: Tensor, settings: StudySettings) -> Answers:
    """The answers to one batch; none where the output is no number for each of several classes."""
    if not (isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1):
        return merge_answers([], settings.best)
    values = output.detach().float().cpu()  # (B, K)
    best = values.topk(min(settings.best, values.shape[1]))
    shares = (
        torch.full_like(values, torch.nan) if settings.head == "scores" else to_probabilities(values, settings.head)
    )
    finite = values.isfinite().all(1)
    return Answers(
        numbers[finite], best.indices[finite].int(), best.values[finite], shares.gather(1, best.indices)[finite]
    )


def merge_studies(parts: Sequence[LayerStudy]) -> LayerStudy:
    """One study for several parts of the images, given in the order of their images."""
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("numbers", "means", "highest")}
    return LayerStudy(torch.stack([part.bins for part in parts]).sum(0), **joined)


def merge_answers(parts: Iterable[Answers], best: int) -> Answers:
    """The answers to several parts of the images, given in the order of their images. best: how many classes each has
    where there are none."""
    given = [part for part in parts if len(part.numbers)]
    if not given:
        none = torch.zeros(0, best)
        return Answers(torch.zeros(0, dtype=torch.int64), none.int(), none, none.clone())
    return Answers(*(torch.cat([getattr(part, name) for part in given]) for name in vars(given[0])))


def number_classes(labels: Sequence[str | None], names: Sequence[str] | None) -> Tensor:
    """The class of each image as its position in the network's output, int64 (N,); -1 where that is not clear.

    labels: as a data set has them. names: of the network's classes. A label is the name of one class, or `name (#12)`,
    which a data set with several classes of that name says, or a number where no class is called so."""
    known = [*names] if names else []
    several = Counter(known)
    positions = {name: i for i, name in enumerate(known) if several[name] == 1}

    def find(label: str | None) -> int:
        if label is None or label in positions:
            return -1 if label is None else positions[label]
        numbered = _NUMBERED.fullmatch(label)
        if numbered and int(numbered["number"]) < len(known) and known[int(numbered["number"])] == numbered["name"]:
            return int(numbered["number"])
        is_number = label.isdecimal() and label not in known and (not known or int(label) < len(known))
        return int(label) if is_number else -1

    found = {label: find(label) for label in {*labels}}
    return torch.tensor([found[label] for label in labels], dtype=torch.int64)


def restore_study(arrays: Mapping[str, Tensor]) -> LayerStudy:
    """The study that was stored among these arrays of a layer."""
    return LayerStudy(**{name.removeprefix(PREFIX): a for name, a in arrays.items() if name.startswith(PREFIX)})
