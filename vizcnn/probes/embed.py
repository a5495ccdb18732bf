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
from vizcnn.probing.facts import Facts
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import MapGrid, Scatter, Thumbnail, make_thumbnail, shorten
from vizcnn.results.photos import reduce_photo
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
from vizcnn.scanning.features import check_features

Embedding = tuple[npt.NDArray[np.float64], tuple[str, str], str]
"""Points (N, 2), what the axes are, and the method in words."""


class Embed(Probe[Scatter]):
    """Which images are alike to the network? Its features in two dimensions, and what neighbours know.

    Each image becomes a vector: the activations of a layer, averaged over positions. By default the layer is what
    enters the network's last one: the features that transfer learning keeps ("bottleneck features"). The map lays
    the vectors out in a plane, by PCA (a projection: distances can only shrink), t-SNE or UMAP (neighbours stay
    together; the size of groups and of the gaps between them means little).

    Where classes are known, each image's class is guessed from its nearest neighbours, once by the features and once by
    the map: the first accuracy says what the layer knows, the second how much of that the picture shows.

        >>> import vizcnn
        >>> photos = [vizcnn.open_photo("sample:grace_hopper").pixels[i:] for i in (0, 40, 80, 120)]  # cut at the top
        >>> vizcnn.Embed(neighbours=1)(vizcnn.load("tiny"), photos).points.shape
        (4, 2)

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

    def rehearse(self, facts: Facts) -> str:
        features = check_features(facts.model, facts.image, self.layer or facts.model.default_layer)
        embed_with_pca(features.vectors)  # refuses features that are all the same, as for every method
        return features.layer

    def compute(self, subject: Subject) -> Scatter:
        images = subject.dataset
        assert images is not None
        choose_perplexity(self.method, len(images), self.perplexity)  # refuses too few images before any is read
        features = compute_features(subject.model, images, self.layer or subject.model.default_layer, subject.progress)
        points, axes, method = self._embed(features.vectors, subject.seed)
        neighbours = measure_neighbours(features.vectors, points, features.labels, self.neighbours)
        details = {"dataset": images.where, "pictures": len(images), "layer": features.layer, "method": self.method}
        return Scatter(
            provenance=subject.provenance(paper=f"{self.paper}; {PAPERS[self.method]}", **details),
            points=points,
            axes=axes,
            title=f"{NAMES[self.method]} of {shorten(features.layer)}"
            + (f"\n{_describe_accuracy(neighbours)}" if neighbours else ""),
            numbers=features.numbers,
            names=tuple(images.names[number] for number in features.numbers),
            labels=features.labels,
            thumbnails=tuple(_make_thumbnails(subject.model, images, features, MapGrid.over(points))),
            found={"neighbours": neighbours and asdict(neighbours), "layer": features.layer, "method": self.method},
            findings=(
                f"{_describe_size(features)}; {method}",
                *_list_notes(images, features, neighbours, self.neighbours),
            ),
            features=features.vectors if self.features else None,
        )

    def _embed(self, vectors: npt.NDArray[np.float32], seed: int) -> Embedding:
        perplexity = choose_perplexity(self.method, len(vectors), self.perplexity)
        points, shares = embed_with_pca(vectors)  # for every method, since it refuses features that are all the same
        if self.method == "pca":
            axes = tuple(f"principal axis {i}, {share:.0%} of the variance" for i, share in enumerate(shares, 1))
            return points, (axes[0], axes[1]), f"PCA: two axes hold {sum(shares):.0%} of the variance"
        if self.method == "tsne":
            return embed_with_tsne(vectors, perplexity, seed), ("", ""), f"t-SNE with perplexity {perplexity:.3g}"
        return embed_with_umap(vectors, seed), ("", ""), "UMAP"


def _describe_size(features: Features) -> str:
    count, size = features.vectors.shape
    classes = len({label for label in features.labels if label is not None})
    of_classes = f" of {classes} classes" if classes > 1 else ""
    return f"{count:,} image{'s' * (count > 1)}{of_classes} by {size:,} features, {features.layer}"


def _describe_accuracy(neighbours: Neighbours) -> str:
    by_features, in_map = f"{neighbours.features:.1%} by features", f"{neighbours.plane:.1%} in the map"
    return f"{neighbours.count}-nearest-neighbour accuracy {by_features}, {in_map}"


def _list_notes(images: Images, features: Features, neighbours: Neighbours | None, asked: int) -> Iterator[str]:
    """What neighbours know, and what the picture does not show."""
    if neighbours:
        yield (
            f"{_describe_accuracy(neighbours)} (euclidean, each image left out in turn); always naming the most "
            f"frequent class would reach {neighbours.largest:.1%}"
        )
        yield from _list_cautions(features, neighbours, asked)
    else:
        yield "fewer than two classes are known, so no accuracy: sub-folders or the option labels would name them"
    if len(features.vectors) < 3:
        yield "a map of fewer than three images shows nothing"
    if features.unreadable:
        number, reason = features.unreadable[0]
        first = images.names[number]
        yield f"{len(features.unreadable)} of {len(images)} images could not be read, the first: {first} ({reason})"
    if features.unusable:
        first = images.names[features.unusable[0]]
        yield f"{len(features.unusable)} images were left out, their features hold NaN or infinity, the first: {first}"


def _list_cautions(features: Features, neighbours: Neighbours, asked: int) -> Iterator[str]:
    """Why an accuracy may say less than it seems to."""
    counts = Counter(label for label in features.labels if label is not None)
    single = sum(count == 1 for count in counts.values())
    if single:
        yield f"{single} of {neighbours.classes} classes have one image, which no neighbour can know"
    if neighbours.images < neighbours.count * neighbours.classes:
        mean = neighbours.images / neighbours.classes
        yield f"classes have {mean:.1f} images on average, fewer than the neighbours that vote: ask fewer neighbours"
    if neighbours.count < asked:
        yield f"only {neighbours.count} neighbours could be asked, not {asked}"
    if neighbours.images < len(features.vectors):
        yield f"{len(features.vectors) - neighbours.images} images have no class and were not asked"


def _make_thumbnails(model: Model, images: Images, features: Features, grid: MapGrid) -> Iterator[Thumbnail]:
    for index in sorted(grid.chosen.tolist()):  # in the data set's order: an archive is read fastest from front to back
        image: Any = images.read(int(features.numbers[index]), model.input.reading)[0]
        photo = to_photo(image) if isinstance(image, Tensor) else image
        seen = Box(0, 0, *photo.size) if isinstance(image, Tensor) else model.input.seen(photo.size)
        yield make_thumbnail(index, reduce_photo(photo, max(photo.size), model.input.display), seen)
