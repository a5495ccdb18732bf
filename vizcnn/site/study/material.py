"""Material: what every page is made from: the network, its sites, the index of a scan, and what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.anatomy.keeping import NOWHERE, Keeper
from vizcnn.ascent import RECIPES, Recipe
from vizcnn.errors import ImageError, ParameterError
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.head import QUANTITIES, Head
from vizcnn.models.model import Model
from vizcnn.scanning import Index, LayerStudy, Tally
from vizcnn.scanning.loader import Loader
from vizcnn.scanning.study import number_classes
from vizcnn.site.records import Missing
from vizcnn.version import __version__

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of an atlas is measured.

    title: what it is called. data: what the data set is called. made: the day. pictures: the names of the sites whose
    units get an optimised picture; None for all. recipe, seed: of these. effects: seconds for measuring what happens
    without units, all together. effect_images, link_images: on how many images. by_hand: the names of the sites that
    can be computed by hand, and hand_images for how many images. pages: how many images get a page of their own,
    with maps. side: of the longer side of stored photographs, px. crops: of a unit, at most.
    compared: with what other network, in words; "" for none."""

    title: str
    data: str
    made: str
    pictures: tuple[str, ...] | None = None
    recipe: Recipe = field(default_factory=lambda: RECIPES["robust"])
    seed: int = 0
    effects: float = 60.0
    effect_images: int = 400
    link_images: int = 64
    by_hand: tuple[str, ...] = ()
    hand_images: int = 4
    pages: int = 20
    side: int = 160
    crops: int = 9
    compared: str = ""


@dataclass(frozen=True)
class Material:
    """A network, its sites, the index of a scan with a study of all of them, and the plan.

    keeper: keeps what takes long, so that an interrupted atlas goes on. progress: whether bars may appear.
    Raises ParameterError for an index that is of other weights, or lacks what an atlas needs, and ImageError for one of
    which no image could be read."""

    model: Model
    sites: Sites
    index: Index
    plan: Plan
    keeper: Keeper = NOWHERE
    progress: bool = False
    _studies: dict[int, LayerStudy] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own, theirs = self.model.weights_sha256(), self.index.identity["model"]["weights_sha256"]
        if own != theirs:
            raise ParameterError(
                f"{self.index.folder} is the index of a network with the weights {theirs[:12]}, and this one's are "
                f"{own[:12]}. Scan this one"
            )
        lacking = [site.read for site in self.sites.sites if site.read not in self.index.layers]
        if lacking or not self.index.has_study:
            what = f"layer {lacking[0]!r}" if lacking else "a study"
            raise ParameterError(
                f"{self.index.folder} lacks {what}, which an atlas needs. Scan again into another folder, with all "
                "sites as layers and study=vizcnn.scanning.Study()"
            )
        if len(self.index.unreadable) == len(self.index.names):
            raise ImageError(f"none of the images can be read, the first: {self.index.unreadable[0][1]}")

    @cached_property
    def hidden(self) -> list[int]:
        """The numbers of the sites that are not the output."""
        return [i for i, site in enumerate(self.sites.sites) if not site.is_output]

    @cached_property
    def output(self) -> int | None:
        """The number of the site that is the output, where that is a number for each of several classes."""
        found = [i for i, s in enumerate(self.sites.sites) if s.is_output and len(s.shape) == 1 and s.shape[0] > 1]
        return found[0] if found else None

    def site(self, i: int) -> Site:
        return self.sites.sites[i]

    def tally(self, i: int) -> Tally:
        return self.index.tally(self.site(i).read)

    def study(self, i: int) -> LayerStudy:
        if i not in self._studies:
            self._studies[i] = self.index.study(self.site(i).read)
        return self._studies[i]

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, or their numbers; none where the output tells none."""
        if self.output is None:
            return []
        return [self.model.class_name(k) for k in range(self.site(self.output).shape[0])]

    @cached_property
    def labels(self) -> Integers:
        """The class of each image, int64 (N,), -1 where it is not known."""
        numbers = self.index.class_numbers
        return np.where(numbers < len(self.classes), numbers, -1)

    @cached_property
    def predicted(self) -> Integers:
        """The class that the network answers, int64 (N,), -1 where it gives none."""
        return self._read_answers(self.index.answers.classes, np.full(len(self.labels), -1, np.int64))

    @property
    def has_labels(self) -> bool:
        """Whether the class of any image is known."""
        return bool((self.labels >= 0).any())

    @property
    def unfollowed(self) -> Missing | None:
        """Why nothing is known of what leads into any site; None for a network that can be recorded."""
        if self.sites.graph is not None:
            return None
        return Missing(f"The network cannot be followed: {self.sites.missing}.")

    @property
    def no_answer(self) -> str:
        """Why an image has no answer."""
        if self.output is None:
            return "The network's output is not a number for each of several classes."
        return "The network has no answer to it."

    @property
    def no_labels(self) -> Missing:
        """Why nothing is known of classes."""
        if self.output is None:
            return Missing(self.no_answer)
        return Missing(
            "No label of the images is the name of a class of the network."
            if self.unknown_labels
            else "The images have no labels."
        )

    @cached_property
    def unknown_labels(self) -> Counter[str]:
        """Labels that are not the name of one class of the network, and how many images have each."""
        pairs = zip(self.index.labels, self.labels, strict=True)
        return Counter(label for label, number in pairs if label is not None and number < 0)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Of the predicted class, float32 (N,), NaN where it is not known."""
        return self._read_answers(self.index.answers.probabilities, np.full(len(self.labels), np.nan, np.float32))

    def _read_answers(self, best: Tensor, found: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`found`, with the first column of `best`, a row for each answer, at the numbers of the answered images."""
        answered = self.index.answers.numbers
        if self.output is not None and len(answered):
            found[answered.numpy()] = best[:, 0].numpy()
        return found

    def key(self, what: str, **more: Any) -> dict[str, Any]:
        """A key for what follows from the network and the images, and what else it depends on; see Keeper."""
        index = self.index
        return {
            "what": what, "version": __version__, "scan": index.fingerprint, "digest": index.facts["digest"], **more
        }  # fmt: skip

    @cached_property
    def accuracy(self) -> float | Missing:
        """The share of the labelled images that the network names rightly, from 0 to 1."""
        known = (self.labels >= 0) & (self.predicted >= 0)
        if not known.any():
            has_answers = self.output is None or (self.predicted >= 0).any()
            return self.no_labels if has_answers else Missing("There are no answers.")
        return float((self.labels == self.predicted)[known].mean())

    @property
    def quantity(self) -> str:
        """What an output is, in a word: a logit, a probability, ..."""
        head: Head = self.index.identity["study"]["head"]
        return QUANTITIES[head]

    def class_means(self, i: int) -> Numbers:
        """The mean activation of a site's units over each class's images, float64 (C, K); NaN for classes without."""
        tally = self.tally(i)
        names = list(tally.classes)
        found = np.full((self.site(i).shape[0], len(self.classes)), np.nan)
        for name, number in zip(names, number_classes(names, self.index.classes).tolist(), strict=True):
            if 0 <= number < len(self.classes):
                total, images = tally.classes[name]
                found[:, number] = (total / images).numpy()
        return found

    def read_inputs(self, numbers: Sequence[int] | Integers) -> Tensor:
        """The inputs of these images, float32 (n, C, H, W) in [0, 1]. Raises ImageError where one is gone."""
        batch = Loader(self.index.images, self.index.contract, self.index.size).load([int(n) for n in numbers])
        if batch.unreadable:
            raise ImageError(
                f"image {batch.unreadable[0][0]} could be read by the scan, and not now: {batch.unreadable[0][1]}"
            )
        return torch.zeros(0, self.model.input.channels, *self.index.size) if batch.inputs is None else batch.inputs

    def choose_spread(self, count: int) -> Integers:
        """The numbers of so many readable images, evenly spread."""
        usable = np.setdiff1d(np.arange(len(self.labels)), [number for number, _ in self.index.unreadable])
        return usable[np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(np.int64))]
