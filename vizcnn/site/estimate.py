"""How many bytes a site will take, from what is known before anything is measured or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, prod
from pathlib import Path

import numpy as np

from vizcnn.site.depths import CROPS, MOST_LAYERS, UNITS
from vizcnn.site.entries import BEST, DENSE
from vizcnn.site.packing import encode_webp
from vizcnn.site.records import Layer, Network, Pixels

_BASE64 = 4 / 3
_UNIT = 520  # bytes of a unit's page beside its lists: keys, statistics, histogram, effect
_CROP, _LINK, _NEIGHBOUR, _CLASS_MEAN, _CLASS_EFFECT = 37, 17, 12, 10, 9  # of an entry in a list
_WALL = 6 * 4 * _BASE64  # of a unit: five numbers and its best class
_FACE = 30  # of a unit's best crop
_WALL_START = 330  # of a wall, whatever its units
_CLASS_PAGE, _VOTE, _EXAMPLE, _EARLY = 110, 22, 4.5, 9
_IMAGE_PAGE, _FIRED, _MAP = 150, 30, 330
_NETWORK, _LAYER = 500, 480
_STANDING = 100  # of a unit that stands for its layer, beside its crops
_BESIDE = 155  # of a unit of the other network, beside its crops and classes
_CHANGE = 4 * 3 * _BASE64  # of a unit: three numbers
_COMPARED_CLASS, _COMPARISON = 12, 600
_PAGE = 3_700  # of index.html and atlas.json
_PICTURE = 50.0  # of an optimised picture: 50 x side^0.89, of a grey one half of that; measured at 28 to 128 px
_GROWTH = 0.89


@dataclass(frozen=True)
class Contents:
    """What a site will hold.

    images: how many were scanned. name: letters of the name of an image's file. pictures: how many optimised pictures
    there will be, and picture the bytes of one. photographs: how many images will stand on some page. samples: some of
    them. image_pages: how many. maps: of each, of map_size numbers. by_hand: the numbers of the layers. readings: of
    how many images, and numbers_read how many numbers these layers read and say for each. crops, links, neighbours,
    classes: how many a unit has, links of both kinds together. kernel: numbers of a link's kernel. compared: how many
    units stand beside those of another network, and other_pictures how many of these have a picture there."""

    network: Network
    images: int
    name: int = 24
    pictures: int = 0
    picture: float = 0.0
    photographs: int = 0
    samples: Sequence[Pixels] = ()
    image_pages: int = 0
    maps: int = 0
    map_size: int = 0
    by_hand: tuple[int, ...] = ()
    readings: int = 0
    numbers_read: int = 0
    crops: int = 9
    links: int = 16
    neighbours: int = 8
    classes: int = 8
    kernel: int = 9
    dataset_images: bool = True
    compared: int = 0
    other_pictures: int = 0


def estimate_size(contents: Contents) -> dict[str, int]:
    """Bytes of each kind, as `Written.bytes` counts them; they are within 15% together."""
    hidden = [layer for layer in contents.network.layers if not layer.is_output]
    units = sum(layer.shape[0] for layer in hidden)
    shown = contents.dataset_images
    parts = {
        "page": _weigh_page(),
        "overview": _NETWORK
        + _LAYER * len(contents.network.layers)
        + sum(len(name) + 3 for name in contents.network.classes)
        + min(MOST_LAYERS, len(hidden)) * UNITS * (_STANDING + shown * CROPS * _CROP),
        "pages of units": units * _weigh_unit(contents),
        "walls": units * (_WALL + _weigh_means(len(contents.network.classes)) + shown * _FACE)
        + sum(_weigh_layer(layer) for layer in hidden),
        "classes": _weigh_classes(contents, len(hidden)),
        "optimised pictures": (contents.pictures + contents.other_pictures) * contents.picture,
        "comparison": _weigh_comparison(contents) if contents.compared else 0,
        "images": contents.images * (4 + 4 + 2) * _BASE64 + 100,
    }
    if shown:
        pages = contents.image_pages * _weigh_image_page(contents, len(hidden))
        parts["images"] += contents.images * (contents.name + 3) + pages
        parts["photographs"] = contents.photographs * _weigh(contents.samples)
        layers = [contents.network.layers[i] for i in contents.by_hand]
        parts["weights by hand"] = sum(layer.parameters * 2 * _BASE64 + 250 for layer in layers)
        parts["activations by hand"] = contents.readings * (contents.numbers_read * 2 * _BASE64 + 150 * len(layers))
    return {kind: round(size) for kind, size in parts.items()}


def _weigh_unit(contents: Contents) -> float:
    kernels = contents.links / 2 * (contents.kernel * _BASE64 + 8)
    classes = min(contents.classes, len(contents.network.classes)) * (_CLASS_MEAN + _CLASS_EFFECT)
    return (
        _UNIT + contents.crops * _CROP + contents.links * _LINK + kernels + contents.neighbours * _NEIGHBOUR + classes
    )


def _weigh_comparison(contents: Contents) -> float:
    classes = len(contents.network.classes)
    unit = _BESIDE + contents.crops * _CROP + min(contents.classes, classes) * _CLASS_MEAN + _CHANGE
    return _COMPARISON + contents.compared * (unit + contents.dataset_images * _FACE) + classes * _COMPARED_CLASS


def _weigh_means(classes: int) -> float:
    """Bytes of a unit's means over the classes on a wall."""
    return (classes if classes <= DENSE else 3 * BEST) * _BASE64 + 4 * _BASE64 * bool(classes)


def _weigh_layer(layer: Layer) -> float:
    """Bytes of a layer beside its units: where the boxes of its places lie, and kernels if it reads the image."""
    main = layer.paths[0] if layer.paths else None
    kernels = 0.0
    if main is not None and main.source is None and main.kernel is not None:
        kernels = layer.shape[0] * (prod(main.kernel) * 3 * _BASE64 + 10)
    return _WALL_START + 6.0 * sum(layer.shape[1:]) + kernels


def _weigh_classes(contents: Contents, layers: int) -> float:
    classes = len(contents.network.classes)
    examples = min(14, contents.images / max(1, classes)) * _EXAMPLE
    return classes * (_CLASS_PAGE + examples + 8 * _VOTE + layers * 4 * _EARLY)


def _weigh_image_page(contents: Contents, layers: int) -> float:
    return _IMAGE_PAGE + contents.maps * (_MAP + contents.map_size * _BASE64) + layers * 5 * _FIRED


def weigh_picture(shape: tuple[int, int, int]) -> float:
    """Bytes of an optimised picture of this shape (C, H, W); one of a few steps alone would weigh far less."""
    channels, height, width = shape
    return float(_PICTURE * (height * width) ** (_GROWTH / 2) * (1.0 if channels >= 3 else 0.5))


def _weigh(pictures: Sequence[Pixels]) -> float:
    """Bytes of a picture, on average."""
    return float(np.mean([len(encode_webp(picture)) for picture in pictures])) if pictures else 0.0


@cache
def _weigh_page() -> int:
    static = Path(__file__).parent / "static"
    return _PAGE + sum(file.stat().st_size for file in static.iterdir() if file.suffix in (".js", ".css"))


def describe_size(parts: dict[str, int]) -> str:
    """The parts from the largest, as people read them: `24.8 MB: optimised pictures 3.8 MB, ...`."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{kind} {_in_megabytes(size)}" for kind, size in ordered if size)
    return f"{_in_megabytes(sum(parts.values()))}: {listed}"


def _in_megabytes(size: int) -> str:
    megabytes = ceil(size / 1e4) / 100
    return f"{megabytes:.3g} MB"
