"""Sources: the images that can be chosen, by name, each read when it is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from warnings import warn

from torch import Tensor

from vizcnn.errors import ParameterError, ShapeError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.readers import list_readers
from vizcnn.models.model import Model
from vizcnn.models.preparing import prepare_source

MOST_IMAGES = 1000
"""Images that can be chosen; of more these are the first."""


@dataclass(frozen=True)
class Source:
    """An image by its name, and what gives its photograph or its tensor (C, H, W)."""

    name: str
    read: Callable[[], Any]


@dataclass(frozen=True)
class Picture:
    """An image that was read. source: as a probe takes it. photo, seen: the photograph, and the box of it that the
    network sees. inputs: (C, H, W) in [0, 1], on the model's device."""

    name: str
    source: Any
    photo: Photo
    seen: Box
    inputs: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in px."""
        return int(self.inputs.shape[1]), int(self.inputs.shape[2])


def list_sources(images: Any, model: Model) -> list[Source]:
    """The images that a person hands over, at most MOST_IMAGES, with a warning where there are more. Files are not read
    yet. Raises ParameterError where there are none."""
    found = list(islice(_split(images, model), MOST_IMAGES + 1))
    if not found:
        raise ParameterError("no images were given. Pass a path, an array, a tensor or a list of these")
    if len(found) > MOST_IMAGES:
        warn(f"only the first {MOST_IMAGES} images can be chosen", VizcnnWarning, stacklevel=2)
    return [*_tell_apart(found[:MOST_IMAGES])]


def _tell_apart(found: list[Source]) -> Iterator[Source]:
    """The same sources, with their position behind names that several have, as a list of arrays gives them."""
    names = Counter(source.name for source in found)
    for i, source in enumerate(found):
        yield source if names[source.name] == 1 else replace(source, name=f"{source.name} {i}")


def _split(images: Any, model: Model) -> Iterator[Source]:
    """One source for each image; a tensor (N, C, H, W) has N."""
    for name, read in list_readers(images, model.input.reading):
        values = read() if name == "tensor" else None
        if isinstance(values, Tensor) and values.dim() == 4:
            yield from (Source(f"tensor {i}", lambda one=one: one) for i, one in enumerate(values))  # type: ignore[misc]
        else:
            yield Source(name, read)


def read_picture(source: Source, model: Model) -> Picture:
    """Read an image. Raises ImageError, ShapeError."""
    read = source.read()
    (found,) = prepare_source(model, read)
    if isinstance(found, ShapeError):
        raise found
    photo, seen, inputs = found
    return Picture(source.name, read, photo, seen, inputs)
