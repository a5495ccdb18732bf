"""Readers: what a person calls images, of any length, as one function for each image that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from torch import Tensor

from vizcnn.errors import ImageError
from vizcnn.inputs.datasets import Images, TorchDataset, is_dataset, name_source
from vizcnn.inputs.images import image_files, is_open_file, read_source, to_printable
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.reading import PLAIN, Reading


def list_readers(source: Any, reading: Reading = PLAIN) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The name of each image that a source stands for, and a function that reads it: a Photo, or a tensor
    (C, H, W) or (N, C, H, W).

    source: an image as `open_photo` takes it, a folder with images directly inside, or tensors; what `dataset` has
        opened, or a torch Dataset; and any list or iterable of these, of any length, which is asked for one more only
        when the one before was done with. An iterable other than a list may also give pairs that begin with images,
        such as (image, label), or a DataLoader's [images, labels].
    reading: how files and arrays are read, as the network's input contract says.
    A folder that cannot be read or holds no images is like one image that cannot be read: reading it raises ImageError.
    """
    if isinstance(source, str | Path):
        yield from _list_file_readers(source, reading)
    elif isinstance(source, Images):
        yield from ((name, partial(_read_image, source, i, reading)) for i, name in enumerate(source.names))
    elif isinstance(source, Tensor):
        yield "tensor", lambda: source
    elif isinstance(source, list | tuple):
        for one in source:
            yield from list_readers(one, reading)
    elif is_dataset(source):
        yield from list_readers(TorchDataset(source), reading)
    elif _is_iterable(source):
        for one in source:
            yield from list_readers(_drop_labels(one), reading)
    else:
        yield name_source(source), partial(read_source, source, reading)


def _list_file_readers(source: str | Path, reading: Reading) -> Iterator[tuple[str, Callable[[], Photo]]]:
    try:
        files = image_files(source)
    except ImageError as error:
        yield to_printable(source), partial(_fail, error)
    else:
        yield from ((to_printable(file), partial(read_source, file, reading)) for file in files)


def _fail(error: ImageError) -> NoReturn:
    raise error


def _drop_labels(item: Any) -> Any:
    """What an iterable gives, without labels: of a tuple the first, of a list all if they are of one kind, as images
    are; else the first too."""
    if not (isinstance(item, list | tuple) and item):
        return item
    kinds = {_name_kind(one) for one in item}
    return item if isinstance(item, list) and len(kinds) == 1 else item[0]


def _name_kind(one: Any) -> Any:
    if isinstance(one, Tensor | np.ndarray):
        return "pixels", one.ndim
    return "several" if isinstance(one, list | tuple) else "file" if isinstance(one, str | Path) else type(one)


def _read_image(images: Images, i: int, reading: Reading) -> Photo | Tensor:
    return images.read(i, reading)[0]


def _is_iterable(source: Any) -> bool:
    """Whether an object gives several images one after the other, and is not one image itself."""
    one = isinstance(source, np.ndarray | Image.Image | bytes | Mapping | Photo) or is_open_file(source)
    return not one and (hasattr(source, "__iter__") or hasattr(source, "__getitem__"))
