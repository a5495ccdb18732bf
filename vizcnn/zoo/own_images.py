"""A person's own images with their classes, as a network reads them, and which of them are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import dirname

import torch
from torch import Tensor

from vizcnn.errors import ImageError, ParameterError
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.inputs.photo import Photo
from vizcnn.models.contract import InputContract
from vizcnn.progress import bar

FEWEST = 5
"""Images that a class needs: one of them is held out, and four teach."""


@dataclass(frozen=True)
class Examples:
    """Images as inputs of a network, with their classes.

    inputs: float32 (N, C, H, W) in [0, 1], before normalisation. labels: int64 (N,), indices into classes.
    left_out: a line for each image that is not among them, with the reason.
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> Examples:
        return Examples(self.inputs[indices], self.labels[indices], self.classes)


def read_examples(folder: str | Path, contract: InputContract, *, progress: bool = True) -> Examples:
    """The images of a folder, or of an archive, whose sub-folders are their classes, sorted.

    contract: of the network that is to see them. An image that cannot be read, that lies in no sub-folder, or that is
    among them already, is left out.
    Raises ImageError without images, and ParameterError for fewer than two classes, for a class with fewer than FEWEST
    images, and for an image that lies in two classes.
    """
    images, pile = dataset(folder), _Pile()
    _refuse_single_class(images)
    with bar(len(images), "reading", "image", shown=progress) as moved:
        for i, name in enumerate(images.names):
            moved.update(1)
            try:
                photo, label = images.read(i, contract.reading)
                assert isinstance(photo, Photo)  # as which files are read
                if label is None:
                    pile.left_out.append(f"{name} lies in no sub-folder of a class")
                elif pile.is_new(name, photo.sha256(), label):
                    pile.inputs.append(contract.prepared(photo)[0])
                    pile.labels.append(label)
            except ImageError as error:
                pile.left_out.append(str(error))
    classes = _list_classes(pile, images.where)
    labels = torch.tensor([classes.index(label) for label in pile.labels])  # (N,)
    return Examples(torch.stack(pile.inputs), labels, classes, tuple(pile.left_out))


def _refuse_single_class(images: Images) -> None:
    """Raise ParameterError where all images lie in the same sub-folder, which then tells no classes apart."""
    folder, *others = {dirname(name) for name in images.names}
    if folder and not others:
        raise ParameterError(_describe_too_few(images.where, f"one class, {folder}"))


@dataclass
class _Pile:
    """What has been read so far. first: by the digests of the images, the name and class of each."""

    inputs: list[Tensor] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    first: dict[str, tuple[str, str]] = field(default_factory=dict)

    def is_new(self, name: str, digest: str, label: str) -> bool:
        """Whether no image before was the same, pixel by pixel: one that teaches must not be held out too.

        Raises ParameterError where it was of another class."""
        before, its_label = self.first.setdefault(digest, (name, label))
        if its_label != label:
            raise ParameterError(f"{before} and {name} are the same image in two classes. Take one of them out")
        if before != name:
            self.left_out.append(f"{name} is the same image as {before}")
        return before == name


def _list_classes(pile: _Pile, where: str) -> tuple[str, ...]:
    """The classes, sorted. Raises ParameterError for too few of them, or of images."""
    counts = Counter(pile.labels)
    why = f" ({len(pile.left_out)} left out, as {pile.left_out[0]})" if pile.left_out else ""
    if len(counts) < 2:
        found = f"one class, {next(iter(counts))}" if counts else "no class"
        raise ParameterError(_describe_too_few(where, f"{found}{why}"))
    name, fewest = min(counts.items(), key=lambda each: each[1])
    if fewest < FEWEST:
        raise ParameterError(
            f"{where} has {fewest} image{'s' * (fewest > 1)} of {name}{why}, and {FEWEST} are the fewest that a class "
            "needs: a part is held out to tell how well it was learned. Add some"
        )
    return tuple(sorted(counts))


def _describe_too_few(where: str, found: str) -> str:
    return (
        f"{where} has images of {found}, and two are the fewest. Put those of each class into a sub-folder of its name"
    )


def split_examples(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Those that teach, and those that are held out: this share of each class, at least one image of it.

    The same for the same images, share and seed."""
    random = torch.Generator().manual_seed(seed)
    taught: list[Tensor] = []
    held: list[Tensor] = []
    for label in range(len(examples.classes)):
        members = (examples.labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=random)]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held.append(members[:count])
        taught.append(members[count:])
    return examples.select(_join(taught)), examples.select(_join(held))


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([*parts]).sort().values
