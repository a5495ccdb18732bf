"""Embed: the images of a data set laid out by what a layer says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.tensors import to_photo
from vizcnn.models.model import Model
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import MapGrid, Scatter, Thumbnail, make_thumbnail, shorten
from vizcnn.scanning import Features, compute_features
from vizcnn.scanning.embedding import (
    NAMES,
    PAPERS,
    Method,
    Neighbours,
    choose_perplexity,
    embed_with_pca,
    embed_with_tsne,
    embed_with_umap,
    measure_neighbours,
    require_library,
)

Laid = tuple[npt.NDArray[np.float64], tuple[str, str], str]
"""Points (N, 2), what the axes are, and what the method says of itself."""


class Embed(Probe[Scatter]):
    """Which images are alike to the network? Its features in two dimensions, and what neighbours know.

    Each image becomes the vector of what a layer says of it, maps averaged over their places. By default that is what
    enters the network's last layer: the features that transfer learning keeps ("bottleneck features"). The map lays
    the vectors out in a plane, by PCA (a projection: distances can only shrink), t-SNE or UMAP (neighbours stay
    together; the size of groups and of the gaps between them means little).

    Where classes are known, each image's nearest others are asked for its class, by the features and by the map: the
    first number says what the layer knows, the second how much of that the picture shows.

    Paper: Donahue et al. 2013, "DeCAF", arXiv:1310.1531 (features of a trained network for other tasks), and the
    method's own. Raises ImageError, LayerNotFound, TargetError, NonFiniteResult, DegenerateResult where all features
    are the same, ParameterError.
    """

    paper: ClassVar[str] = "Donahue et al. 2013, arXiv:1310.1531"
    streams: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False

    layer: str | None = param(
        None, "Layer whose output is laid out. Default: what enters the last convolution or linear layer."
    )
    method: Method = param("pca", "PCA; t-SNE needs the extra `embed`, UMAP the extra `umap`.")
    neighbours: int = param(5, "Nearest images that are asked for an image's class.", min=1)
    perplexity: float | None = param(
        None, "Of t-SNE: how many neighbours an image has, roughly. Default: 30, less for few images.", min=1
    )
    labels: str | None = param(
        None, "A file of lines NAME,CLASS. Default: the sub-folders, or what a torch Dataset says."
    )
    features: bool = param(False, "Keep the features too, in .npz and .safetensors.")

    def check(self) -> None:
        require_library(self.method)
        if self.perplexity is not None and self.method != "tsne":
            raise ParameterError(f"perplexity is an option of method 'tsne', and the method is {self.method!r}")

    def labels_from(self) -> str | None:
        return self.labels

    def compute(self, subject: Subject) -> Scatter:
        images = subject.dataset
        assert images is not None
        choose_perplexity(self.method, len(images), self.perplexity)
        found = compute_features(subject.model, images, self.layer, subject.progress)
        points, axes, said = self._laid(found.vectors, subject.seed)
        known = measure_neighbours(found.vectors, points, found.labels, self.neighbours)
        details = {"dataset": images.where, "pictures": len(images), "layer": found.layer, "method": self.method}
        return Scatter(
            provenance=subject.provenance(paper=f"{self.paper}; {PAPERS[self.method]}", **details),
            points=points,
            axes=axes,
            title=f"{NAMES[self.method]} of {shorten(found.layer)}" + (f"\n{_shares(known)}" if known else ""),
            numbers=found.numbers,
            names=tuple(images.names[number] for number in found.numbers),
            labels=found.labels,
            thumbnails=tuple(_thumbnails(subject.model, images, found, MapGrid.over(points))),
            found={"neighbours": known and asdict(known), "layer": found.layer, "method": self.method},
            findings=(f"{_counted(found)}; {said}", *_notes(images, found, known, self.neighbours)),
            features=found.vectors if self.features else None,
        )

    def _laid(self, vectors: npt.NDArray[np.float32], seed: int) -> Laid:
        perplexity = choose_perplexity(self.method, len(vectors), self.perplexity)
        points, shares = embed_with_pca(vectors)
        if self.method == "pca":
            axes = tuple(f"principal axis {i}, {share:.0%} of the variance" for i, share in enumerate(shares, 1))
            return points, (axes[0], axes[1]), f"PCA: two axes hold {sum(shares):.0%} of the variance"
        if self.method == "tsne":
            return embed_with_tsne(vectors, perplexity, seed), ("", ""), f"t-SNE with perplexity {perplexity:.3g}"
        return embed_with_umap(vectors, seed), ("", ""), "UMAP"


def _counted(found: Features) -> str:
    count, size = found.vectors.shape
    classes = len({label for label in found.labels if label is not None})
    of_classes = f" of {classes} classes" if classes > 1 else ""
    return f"{count:,} image{'s' * (count > 1)}{of_classes} by {size:,} features, {found.layer}"


def _shares(known: Neighbours) -> str:
    return f"{known.count}-nearest-neighbour accuracy {known.features:.1%} by features, {known.plane:.1%} in the map"


def _notes(images: Images, found: Features, known: Neighbours | None, asked: int) -> Iterator[str]:
    """What neighbours know, and what the picture does not show."""
    if known:
        yield (
            f"{_shares(known)} (euclidean, each image left out in turn); always naming the most frequent class "
            f"would reach {known.largest:.1%}"
        )
        yield from _cautions(found, known, asked)
    else:
        yield "fewer than two classes are known, so no accuracy: sub-folders or the option labels would name them"
    if len(found.vectors) < 3:
        yield "a map of fewer than three images shows nothing"
    if found.unreadable:
        number, reason = found.unreadable[0]
        first = images.names[number]
        yield f"{len(found.unreadable)} of {len(images)} images could not be read, the first: {first} ({reason})"
    if found.unusable:
        first = images.names[found.unusable[0]]
        yield f"{len(found.unusable)} images were left out, their features hold NaN or infinity, the first: {first}"


def _cautions(found: Features, known: Neighbours, asked: int) -> Iterator[str]:
    counts = Counter(label for label in found.labels if label is not None)
    single = sum(count == 1 for count in counts.values())
    if single:
        yield f"{single} of {known.classes} classes have one image, which no neighbour can know"
    if known.images < known.count * known.classes:
        mean = known.images / known.classes
        yield f"classes have {mean:.1f} images on average, fewer than the neighbours that vote: ask fewer neighbours"
    if known.count < asked:
        yield f"only {known.count} neighbours could be asked, not {asked}"
    if known.images < len(found.vectors):
        yield f"{len(found.vectors) - known.images} images have no class and were not asked"


def _thumbnails(model: Model, images: Images, found: Features, spread: MapGrid) -> Iterator[Thumbnail]:
    for index in sorted(spread.chosen.tolist()):  # in the order of the data set, which suits archives
        image: Any = images.read(int(found.numbers[index]))[0]
        photo = to_photo(image) if isinstance(image, Tensor) else image
        seen = Box(0, 0, *photo.size) if isinstance(image, Tensor) else model.input.seen(photo.size)
        yield make_thumbnail(index, photo, seen)
