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
from vizcnn.inputs.images import image_files, is_open_file, open_photo, to_printable
from vizcnn.inputs.photo import Photo


def list_readers(source: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The name of each image that a source stands for, and a function that reads it: a Photo, or a tensor
    (C, H, W) or (N, C, H, W).

    source: an image as `open_photo` takes it, a folder with images directly inside, or tensors; what `dataset` has
        opened, or a torch Dataset; and any list or iterable of these, of any length, which is asked for one more only
        when the one before was done with. An iterable other than a list may also give pairs that begin with images,
        such as (image, label), or a DataLoader's [images, labels].
    A folder that cannot be read or holds no images is like one image that cannot be read: reading it raises ImageError.
    """
    if isinstance(source, str | Path):
        yield from _list_file_readers(source)
    elif isinstance(source, Images):
        yield from ((name, partial(_read_image, source, i)) for i, name in enumerate(source.names))
    elif isinstance(source, Tensor):
        yield "tensor", lambda: source
    elif isinstance(source, list | tuple):
        for one in source:
            yield from list_readers(one)
    elif is_dataset(source):
        yield from list_readers(TorchDataset(source))
    elif _is_iterable(source):
        for one in source:
            yield from list_readers(_drop_labels(one))
    else:
        yield name_source(source), partial(open_photo, source)


def _list_file_readers(source: str | Path) -> Iterator[tuple[str, Callable[[], Photo]]]:
    try:
        files = image_files(source)
    except ImageError as error:
        yield to_printable(source), partial(_fail, error)
    else:
        yield from ((to_printable(file), partial(open_photo, file)) for file in files)


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


def _read_image(images: Images, i: int) -> Photo | Tensor:
    return images.read(i)[0]


def _is_iterable(source: Any) -> bool:
    """Whether an object gives several images one after the other, and is not one image itself."""
    one = isinstance(source, np.ndarray | Image.Image | bytes | Mapping | Photo) or is_open_file(source)
    return not one and (hasattr(source, "__iter__") or hasattr(source, "__getitem__"))
