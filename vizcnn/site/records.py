"""What an atlas says, as numbers: a study fills these records, and the writer makes pages of them.

Places count in rows and columns, boxes in px of the input. A number that nobody measured is `Missing`, with the reason,
which the page shows in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.receptive.field import ReceptiveField
from vizcnn.results.trust import Trust

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

Activation = Literal["", "relu", "relu6", "leaky relu", "silu", "gelu", "hardswish", "sigmoid", "tanh", "other"]
"""What stands between the sum of a layer's paths and its units; "" for nothing."""


@dataclass(frozen=True)
class Missing:
    """Something that was not measured. reason: a sentence for people, such as `The images have no labels.`"""

    reason: str


@dataclass(frozen=True)
class Origin:
    """What an atlas was made from, and how.

    version: of vizcnn. made: the day, `2026-11-27`. model: its name. weights: the digest of its weights. data: what the
    data set is called; it is no path. fingerprint: the digest of the scan. options: names and values, in words."""

    version: str
    made: str
    model: str
    weights: str
    data: str
    fingerprint: str
    options: tuple[tuple[str, str], ...] = ()


# ------------------------------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class Path:
    """One way into a layer of an atlas: what it reads, and the weights that it reads it through.

    source: the number of the layer that is read; None for the image. weights: the module that has them; "" where what
    is read is added as it is. norm: the module of the norm that follows, "" for none. kernel: its (rows, columns);
    None for a dense layer or none. groups: of the convolution. via: what lies between source and weights, in words,
    such as `max pooling`. is_joined: whether its channels stand beside those of the way before, as `torch.cat` puts
    them, instead of being added."""

    source: int | None
    weights: str
    norm: str = ""
    kernel: tuple[int, int] | None = None
    groups: int = 1
    via: tuple[str, ...] = ()
    is_joined: bool = False


@dataclass(frozen=True)
class Layer:
    """A place where units are read: an activation function, or the output, with all weights that lead into it.

    name: that of its last weights, such as `layer2.0.conv2`. read: the module whose output the units are. stage: under
    which heading it stands; "" for none. shape: (C, h, w), or (C,) of a dense layer. paths: the main one, with the
    weights that it is named for, first; none where the network could not be followed. slope: of a leaky ReLU.
    parameters: of all its weights and norms. zeros: the share of activations that are exactly zero. dead: how many
    units are never above zero. always_on: how many are zero in less than 1% of all places. strongest: the units that
    stand for it on the overview, best first. is_output: whether its units are the classes."""

    name: str
    read: str
    shape: tuple[int, ...]
    paths: tuple[Path, ...]
    activation: Activation
    parameters: int
    field: ReceptiveField | Missing
    zeros: float | Missing
    dead: int | Missing
    always_on: int | Missing
    strongest: tuple[int, ...]
    stage: str = ""
    slope: float = 0.0
    is_output: bool = False


@dataclass(frozen=True)
class Network:
    """The overview: the network in the order in which it runs.

    title: what the atlas is called. input: (C, H, W). parameters: of the whole network. classes: their names; none
    for a network without. images: how many were scanned. accuracy: the share that is named rightly, from 0 to 1.
    layers: in the order in which they run; where one is the output, it is the last. graph: why paths are missing,
    where they are. notes: what people wrote, by page: `LAYER/UNIT`, `class NUMBER`, `image NUMBER`. origin: where all
    this is from."""

    title: str
    input: tuple[int, int, int]
    parameters: int
    classes: tuple[str, ...]
    images: int
    accuracy: float | Missing
    layers: tuple[Layer, ...]
    origin: Origin
    graph: Missing | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


# ----------------------------------------------------------------------------------------------------- layers and units


@dataclass(frozen=True)
class Wall:
    """What is known of all C units of a layer: float32 (C,) unless said otherwise.

    highest, mean: over all images and places. zeros: the share of activations that are exactly zero, NaN where that
    says nothing. dead: bool. best_class: int64, the class with the highest mean; -1 for none. selectivity: from 0 to
    1, that mean m against the mean n of the other classes' means, (m - n) / (m + n) (Morcos et al. 2018); NaN for
    none. effect: the mean change of `effect_of` without the unit, NaN where it is not known. is_estimated: bool,
    whether it was estimated to first order. class_means: (C, classes), the mean activation over each class's
    images."""

    highest: Floats
    mean: Floats
    zeros: Floats
    dead: npt.NDArray[np.bool_]
    best_class: Integers
    selectivity: Floats
    effect: Floats
    is_estimated: npt.NDArray[np.bool_]
    class_means: Floats | Missing
    effect_of: str = "the right class's logit"


@dataclass(frozen=True)
class Crop:
    """One of the images that excite a unit most. place: (row, column) of its largest activation, None of a dense layer.
    box: what of the input that place can see, clipped to the input; None where that is not known."""

    image: int
    value: float
    place: tuple[int, int] | None
    box: Box | None


@dataclass(frozen=True)
class Picture:
    """A picture that was optimised for a unit or a class.

    pixels: (h, w, 3) or (h, w, 1). reached: the unit's largest activation in it, of a class the logit."""

    pixels: Pixels
    reached: float


@dataclass(frozen=True)
class Histogram:
    """How many of a unit's activations lie where, zeros apart.

    counts: int64 (B,), those that are not zero. edges: float32 (B + 1,), rising; the first and last may be infinite.
    zeros: how many are exactly zero."""

    counts: Integers
    edges: Floats
    zeros: int


@dataclass(frozen=True)
class Effect:
    """What happens without a unit: its activations set to zero everywhere.

    change: the mean change of `of`. images: on how many that was measured. flips: how many answers change; None of an
    estimate. before, after: the accuracy on these images; None where it is not known. by_class: classes and the mean
    change on their own images, the most hurt and the most helped, most hurt first. correlation: None where it was
    measured; of an estimate to first order, Pearson's with what was measured in this layer, on `checked` units."""

    change: float
    images: int
    flips: int | None = None
    before: float | None = None
    after: float | None = None
    by_class: tuple[tuple[int, float], ...] = ()
    of: str = "the right class's logit"
    correlation: float | None = None
    checked: int = 0


@dataclass(frozen=True)
class Link:
    """What one unit adds to another through one path.

    layer, unit: the other end; layer None: the channel `unit` of the image. path: the number of the path, of the layer
    that reads. value: what it adds; the page says what that is of. kernel: float32 (rows, columns), or None."""

    layer: int | None
    unit: int
    path: int
    value: float
    kernel: Floats | None = None


@dataclass(frozen=True)
class Neighbour:
    """A unit that goes along with another. correlation: Pearson's, of the means over the images."""

    layer: int
    unit: int
    correlation: float


@dataclass(frozen=True)
class Unit:
    """The page of a unit.

    crops: best first, none of a unit that nothing excites. picture: an optimised one. kernel: (rows, columns, 3 or 1)
    float32, of a unit that reads the image directly, in input px and channels. mean, sd, lowest, highest: over all
    images and places. zeros: the share that is exactly zero. classes: numbers and mean activations over each class's
    images, best first. overall: the mean of that over all classes. reads: what drives it, the strongest first.
    feeds: what it drives, the strongest first. reads_are, feeds_are: what the values of these are, in words.
    neighbours: best first."""

    crops: tuple[Crop, ...]
    picture: Picture | Missing
    histogram: Histogram | Missing
    mean: float
    sd: float
    lowest: float
    highest: float
    zeros: float | Missing
    classes: tuple[tuple[int, float], ...] | Missing
    overall: float | Missing
    effect: Effect | Missing
    reads: tuple[Link, ...] | Missing
    feeds: tuple[Link, ...] | Missing
    neighbours: tuple[Neighbour, ...] | Missing
    kernel: Floats | None = None
    reads_are: str = "the standard deviation over places of what each adds to it"
    feeds_are: str = "what it adds to each, in standard deviations of that unit"


# ------------------------------------------------------------------------------------------------- classes and images


@dataclass(frozen=True)
class Vote:
    """A unit of the last hidden layer for or against a class: weight x its mean on the class's images, in logits."""

    layer: int
    unit: int
    value: float
    weight: float


@dataclass(frozen=True)
class ClassPage:
    """The page of a class.

    images: how many of the data set have this label. right: how many of them are named rightly; Missing without
    labels. picture: optimised for its logit. examples: numbers of images, surest first. votes: strongest for it
    first, strongest against it last. early: layers, and units with the mean on its images as a multiple of their mean
    over all classes. taken_for: classes that its images are mistaken for, with how many. taken_from: classes whose
    images are mistaken for it."""

    images: int
    right: int | Missing
    picture: Picture | Missing
    examples: tuple[int, ...]
    votes: tuple[Vote, ...] | Missing
    early: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] | Missing
    taken_for: tuple[tuple[int, int], ...] = ()
    taken_from: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Images:
    """All images of the data set: (N,) each. labels: int64 class numbers, -1 for none. predicted: int64, -1 for none.
    probabilities: float32, of what was predicted, NaN where the outputs are no probabilities. names: of the files; they
    are left out of a site without images of the data set."""

    labels: Integers
    predicted: Integers
    probabilities: Floats
    names: tuple[str, ...]


@dataclass(frozen=True)
class MapOf:
    """A map of an image for one class.

    method: its name. meaning: what a value is. target: the class, in words. values: float32 (h, w) over the whole
    input. trust: how far it can be believed."""

    method: str
    meaning: str
    target: str
    values: Floats
    trust: Trust | Missing


@dataclass(frozen=True)
class Fired:
    """A unit and an image: its largest activation there, that as a share of the highest of all images, and the box that
    its strongest place sees."""

    unit: int
    value: float
    share: float
    box: Box | None


@dataclass(frozen=True)
class ImagePage:
    """The page of an image that was looked at closely.

    image: its number. answers: classes with their probabilities, best first. maps: what of the image the answer comes
    from. unmade: a sentence for each map that could not be made. fired: layers and their units nearest to their
    highest."""

    image: int
    answers: tuple[tuple[int, float], ...]
    maps: tuple[MapOf, ...]
    unmade: tuple[str, ...]
    fired: tuple[tuple[int, tuple[Fired, ...]], ...] | Missing


# ---------------------------------------------------------------------------------------------------------- by hand


@dataclass(frozen=True)
class Folded:
    """The weights of a path with the norm behind them multiplied in.

    weight: float32 (O, I / groups, rows, columns), or (O, I). bias: float32 (O,). padding is of zeros."""

    weight: Floats
    bias: Floats
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Reading:
    """What a layer reads and says for one image. reads: float32, one array for each path, (C, h, w) or (I,), after
    whatever lies between, such as pooling. says: float32, of the layer's shape."""

    image: int
    reads: tuple[Floats, ...]
    says: Floats


@dataclass(frozen=True)
class ByHand:
    """All numbers from which a layer can be computed. terms: one for each path; None where what is read is added as it
    is. readings: a few images."""

    terms: tuple[Folded | None, ...]
    readings: tuple[Reading, ...]


class Records(Protocol):
    """All that an atlas shows. What is large is asked for part by part, in this order, each part once."""

    @property
    def network(self) -> Network: ...

    @property
    def images(self) -> Images: ...

    def wall(self, layer: int) -> Wall: ...

    def units(self, layer: int) -> Iterable[Unit]:
        """The units of a layer in order. Not asked for where the layer is the output: its units are the classes."""

    def classes(self) -> Iterable[ClassPage]:
        """One for each class, in order."""

    def image_pages(self) -> Iterable[ImagePage]: ...

    def by_hand(self, layer: int) -> ByHand | Missing: ...

    def photograph(self, image: int) -> Pixels:
        """What the network sees of an image, (h, w, 3) or (h, w, 1), at any size: it covers the input."""
