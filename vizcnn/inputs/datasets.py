"""Data sets: many images by number, each read when it is needed."""

from __future__ import annotations

import csv
import hashlib
import os
import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from operator import index
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from vizcnn.errors import ImageError, ParameterError
from vizcnn.inputs.archives import Archive, open_archive
from vizcnn.inputs.folders import FileEntry, list_files
from vizcnn.inputs.images import (
    expand_sources,
    is_hidden,
    is_image,
    is_open_file,
    list_image_endings,
    name_open_file,
    open_file,
    raise_image_errors,
    read_photo,
    read_source,
    refuse_address,
    to_printable,
    warn_of_skipped,
)
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.reading import PLAIN, Reading
from vizcnn.inputs.records import provenance_in
from vizcnn.process import ignore_warnings

Entry = tuple[Photo | Tensor, str | None]
"""An image, as a photograph or as an input of the network (C, H, W), and its class where that is known."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".txz", ".gz", ".xz", ".bz2")
_IMAGES_OR_LISTS = (list, tuple, Tensor, np.ndarray, Image.Image)
_SAMPLED = 8  # images that are looked at to tell one torch Dataset from another


class Images(ABC):
    """Many images by number, from 0 to len() - 1, always in the same order.

    where: what they were read from, for people.
    names: of each image; in a folder or an archive its path inside.
    place: what `dataset` makes them of again in another process; None where they are not on disk.
    numbered: whether classes are given as numbers of outputs, not as names, which may be digits too.
    """

    where: str
    names: Sequence[str]
    place: Any = None
    numbered = False

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, i: int, reading: Reading = PLAIN) -> Entry:
        """Image i and its class. reading: as the network's input contract asks for.

        Raises ImageError for an image that cannot be read."""

    @abstractmethod
    def identity(self) -> Iterator[str]:
        """Texts by which this data set is told from any other."""

    @property
    def unlabelled(self) -> Images:
        """The same images, without the classes that `dataset(labels=...)` gave them."""
        return self

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what the data set holds: of names and sizes for files, of a few images for a torch Dataset."""
        digest = hashlib.sha256()
        for text in self.identity():
            digest.update(f"{text}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def dataset(source: Any, labels: str | Path | Mapping[str, str | int] | None = None) -> Images:
    """Open a data set: many images by number, each read when it is needed.

    source: a folder, read with all its sub-folders; a .zip or .tar archive (compressed ones too, slower), or a folder
        inside it as ARCHIVE/FOLDER; a torch Dataset with a length, of images or (image, label); an image or a list of
        them as `open_photo` takes them; tensors (C, H, W) or (N, C, H, W) in [0, 1], which are inputs as they are.
        Hidden files and folders are left out: names that begin with a dot, `__MACOSX` and the like.
    labels: the class of each image by its name, as a mapping or as a file of lines `name,class` (comma or tab, further
        columns are ignored), none where that is empty. By default the sub-folder that an image lies in, or what a torch
        Dataset says.

    Raises ImageError and ParameterError.
    """
    found = source if isinstance(source, Images) else _open_source(source)
    if not len(found):
        raise ImageError(f"{found.where} holds no images")
    return found if labels is None else LabelledImages(found, _read_labels(labels))


def _open_source(source: Any) -> Images:
    if isinstance(source, str | Path):
        return _open_path(source)
    if is_dataset(source):
        return TorchDataset(source)
    return ListedImages(source)


def is_dataset(source: Any) -> bool:
    """Whether an object gives images by number, as a torch Dataset does. One that is iterated has no numbers."""
    return (
        hasattr(source, "__getitem__")
        and hasattr(source, "__len__")
        and not isinstance(source, _IMAGES_OR_LISTS)
        and not isinstance(source, bytes | Mapping | IterableDataset)
    )


def _open_path(source: str | Path) -> Images:
    path = Path(source).absolute()  # other processes may work in another folder
    if os.path.isdir(path):
        return FolderFiles(path)
    outer = next((p for p in (path, *path.parents) if os.path.isfile(p)), None)
    if outer is not None and outer.suffix.lower() in _ARCHIVES:
        inside = path.relative_to(outer).as_posix()
        return ArchiveFiles(outer, "" if inside == "." else f"{inside}/")
    if not str(source).startswith("sample:"):
        refuse_address(source)
        with raise_image_errors(path), open_file(path):  # what is no file is known at once
            pass
    return ListedImages([source])


class _ImageFiles(Images):
    """Images that are files, with their classes told by their paths."""

    _found: Sequence[FileEntry]

    def _select_images(self, files: Iterable[tuple[str, FileEntry]]) -> None:
        """Keep the image files, and what is lost and may have been one, sorted by path."""
        endings = list_image_endings()
        last = dict(files)  # an archive may hold a path again, which replaces what stood there before
        kept = sorted((path, found) for path, found in last.items() if _is_wanted(path, found, endings))
        self.names, self._found = [path for path, _ in kept], [found for _, found in kept]
        shared = posixpath.commonpath([posixpath.dirname(name) for name in self.names]) if kept else ""
        self._depth = len(PurePosixPath(shared).parts)

    def label(self, i: int) -> str | None:
        """The class of image i: the first folder of its path that is not common to all images; None without one."""
        parts = PurePosixPath(self.names[i]).parts
        return parts[self._depth] if len(parts) > self._depth + 1 else None

    def read(self, i: int, reading: Reading = PLAIN) -> Entry:
        path, found = Path(self.names[i]), self._found[i]
        if found.problem:
            raise ImageError(f"{to_printable(self.names[i])} {found.problem}")
        with raise_image_errors(path):
            file = self._open_file(i)
        with file:
            return read_photo(file, path, reading), self.label(i)

    @abstractmethod
    def _open_file(self, i: int) -> IO[bytes]:
        """File i, open to be read."""

    def identity(self) -> Iterator[str]:
        for name, found in zip(self.names, self._found, strict=True):
            yield f"{name} {found.problem or found.size}"


def _is_wanted(path: str, found: FileEntry, endings: frozenset[str]) -> bool:
    """Whether a file is an image by its name, or cannot be read and may be a folder of images."""
    lost_folder = found.problem and (path.endswith("/") or not posixpath.splitext(path)[1])
    return is_image(path, endings) or (bool(lost_folder) and not is_hidden(path))


class FolderFiles(_ImageFiles):
    """The image files of a folder and all its sub-folders, without the pictures that vizcnn has made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.where, self.place = folder, str(folder), str(folder)
        with raise_image_errors(folder):
            files = dict(list_files(folder))
        endings = list_image_endings()
        own = {name for name in files if is_image(name, endings) and provenance_in(folder / name) is not None}
        warn_of_skipped(len(own), folder)
        self._select_images((name, found) for name, found in files.items() if name not in own)

    def _open_file(self, i: int) -> IO[bytes]:
        return open_file(self.folder / self.names[i])


class ArchiveFiles(_ImageFiles):
    """The image files of an archive, or of a folder inside it. Each process opens it for itself."""

    def __init__(self, path: Path, inside: str) -> None:
        self.path, self.inside = path, inside
        self.where = self.place = f"{path}/{inside}".rstrip("/")
        self._archives: dict[int, Archive] = {}
        with raise_image_errors(path), closing(open_archive(path)) as archive:
            self._select_images(
                (name.removeprefix(inside), found) for name, found in archive.files() if name.startswith(inside)
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_archives": {}}

    def __del__(self) -> None:
        for archive in vars(self).get("_archives", {}).values():
            archive.close()

    def _open_file(self, i: int) -> IO[bytes]:
        return self._archive().read(self._found[i])

    def _archive(self) -> Archive:
        """The archive, opened by this process: one opened before a fork would share its position with the parent."""
        process = os.getpid()
        if process not in self._archives:
            new = open_archive(self.path)
            if self._archives.setdefault(process, new) is not new:  # another thread was faster
                new.close()
        return self._archives[process]


class ListedImages(Images):
    """Images that a person gives one by one: paths, Pillow images, arrays, tensors."""

    def __init__(self, source: Any) -> None:
        self._entries = [entry for one in expand_sources(source) for entry in _split(one)]
        self.where = f"{len(self._entries)} images"
        self.names = [
            name if isinstance(entry, str) else f"{name} {i}" for i, (name, entry) in enumerate(self._entries)
        ]
        files = [entry for _, entry in self._entries if isinstance(entry, str)]
        self.place = files if len(files) == len(self._entries) else None

    def read(self, i: int, reading: Reading = PLAIN) -> Entry:
        entry = self._entries[i][1]
        return entry if isinstance(entry, Tensor) else read_source(entry, reading), None

    def identity(self) -> Iterator[str]:
        for name, entry in self._entries:
            yield f"{name} {_measure_file(entry) if isinstance(entry, str) else _digest(entry)}"


def _split(source: Any) -> Iterator[tuple[str, Any]]:
    """Name and image of each image in a source: a tensor (N, C, H, W) holds N of them."""
    if isinstance(source, Tensor):
        yield from (("tensor", each) for each in (source if source.dim() == 4 else source[None]))
    else:
        path = str(source) if isinstance(source, str | Path) else None
        if path and not path.startswith("sample:"):
            path = str(Path(path).absolute())  # other processes may work in another folder
        yield Path(path or name_source(source)).name, path or source


def name_source(source: Any) -> str:
    """The name of an image in memory or in an open file; `image` where it has none."""
    return name_open_file(source) if is_open_file(source) else getattr(source, "filename", "") or "image"


def _measure_file(path: str) -> int:
    """A file's size in bytes; -1 for a sample, or where there is no file."""
    return os.path.getsize(path) if os.path.isfile(path) else -1


class TorchDataset(Images):
    """A torch Dataset of images, or of tuples that begin with an image and its label."""

    def __init__(self, held: Any) -> None:
        self.held, self.where = held, f"{type(held).__name__} of {len(held)}"
        self.names = [str(i) for i in range(len(held))]
        self._classes: Sequence[str] | None = getattr(held, "classes", None)
        self._shared = Counter(self._classes or ())  # ImageNet has two classes called crane
        self.numbered = not self._classes

    def read(self, i: int, reading: Reading = PLAIN) -> Entry:
        image, label = self._take(i)
        return image if isinstance(image, Tensor) else read_source(image, reading), self._name_class(label)

    def _take(self, i: int) -> tuple[Any, Any]:
        """Image i as the Dataset gives it, and its label; None without one."""
        try:
            item = self.held[i]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises of damaged files
            raise ImageError(f"image {i} cannot be read: {error}") from error
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        return image, label

    def _name_class(self, label: Any) -> str | None:
        """A label as a class name; None for what is no class, such as a number with a fraction or a list of boxes."""
        if isinstance(label, str):
            return label
        try:
            number = index(label)
        except TypeError:
            return None
        if not self._classes or not 0 <= number < len(self._classes):
            return str(number)
        name = self._classes[number]
        return f"{name} (#{number})" if self._shared[name] > 1 else name

    def identity(self) -> Iterator[str]:
        yield f"{type(self.held).__module__}.{type(self.held).__qualname__} {len(self)}"
        for i in sorted({round(j) for j in np.linspace(0, len(self) - 1, _SAMPLED)}):
            try:
                image, label = self._take(i)
                yield f"{i} {self._name_class(label)} {_digest(image)}"
            except ImageError:
                yield f"{i} unreadable"


class LabelledImages(Images):
    """A data set with classes that a mapping from the images' names gives."""

    def __init__(self, images: Images, classes: Mapping[str, str | int]) -> None:
        self.images, self.where, self.names, self.place = images, images.where, images.names, images.place
        chosen = [classes.get(name, classes.get(PurePosixPath(name).name)) for name in images.names]
        self._classes = [None if label in (None, "") else str(label) for label in chosen]
        self.numbered = all(label is None or isinstance(label, int) for label in chosen)
        if not any(self._classes):
            raise ParameterError(f"the labels name none of the images, which are named like {images.names[0]!r}")

    @property
    def unlabelled(self) -> Images:
        return self.images

    def read(self, i: int, reading: Reading = PLAIN) -> Entry:
        return self.images.read(i, reading)[0], self._classes[i]

    def identity(self) -> Iterator[str]:
        yield from self.images.identity()
        yield from map(str, self._classes)


def _read_labels(labels: str | Path | Mapping[str, str | int]) -> Mapping[str, str | int]:
    """The class by image name, from a mapping or a file of lines `name,class`. Raises ParameterError."""
    if isinstance(labels, Mapping):
        return {str(name): label for name, label in labels.items()}
    if not isinstance(labels, str | Path):
        raise ParameterError(
            f"labels are a file or a mapping from images' names to classes, got {type(labels).__name__}. Those in the "
            "order of the images go with them, as in torch.utils.data.TensorDataset(images, labels)"
        )
    try:
        with open_file(Path(labels)) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
        rows = csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",", strict=True)
        return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    except (OSError, UnicodeDecodeError, csv.Error, ImageError) as error:
        raise ParameterError(f"the labels {to_printable(labels)} cannot be read: {error}") from error


def _digest(image: Any) -> str:
    """A digest of an image's pixels, or of an input tensor."""
    if isinstance(image, np.ndarray):  # as it is: how it is to be read, the network's contract will say
        return hashlib.sha256(f"{image.shape} {image.dtype}".encode() + image.tobytes()).hexdigest()
    if not isinstance(image, Tensor):
        with ignore_warnings():  # which the network's contract may answer
            return read_source(image, PLAIN).sha256()
    return hashlib.sha256(repr(image.shape).encode() + image.detach().cpu().float().numpy().tobytes()).hexdigest()
