"""Archives: the files in a .zip or .tar, listed once, then read one by one without being unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from vizcnn.errors import ImageError
from vizcnn.inputs.folders import FileEntry, Folder, walk_files
from vizcnn.inputs.images import describe_problem, open_file

LARGEST_FILE = 300_000_000
"""The most bytes that are unpacked of one file in an archive: the largest image as uncompressed RGB takes 268 MB."""

_PIECE = 4096  # read at once: zipfile unpacks whatever comes of so many packed bytes, which bzip2 can make 80 MB of
_LARGEST_HEADER = 1 << 20  # bytes of a tar's header, such as a long name or extended attributes
_MOST_LINKS = 40  # that are followed on the way to one file, as Linux does
_NOWHERE = "/"  # a path that no archive holds

_UNPACKERS: dict[bytes, Any] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\x00": lzma}


class Link(NamedTuple):
    """A symbolic link. text: the path that it holds, from the folder that the link lies in."""

    text: str


Tree = dict[str, FileEntry | Link | None]
"""The files and links that an archive holds, by path; None for a folder."""


class Archive(ABC):
    """An archive that is open in this process. Threads may share it: they read in turn."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def files(self) -> Iterator[tuple[str, FileEntry]]:
        """Path and file of every file and of every link to one. Raises whatever a damaged archive leads to."""
        return _resolve_links(self._tree())

    def read(self, file: FileEntry) -> io.BytesIO:
        """The bytes of a file. Raises ImageError, and whatever a damaged archive leads to."""
        if file.size > LARGEST_FILE:  # both libraries give no more than this size, whatever comes out
            raise ImageError(
                f"it has {file.size:,} bytes unpacked, more than {LARGEST_FILE:,}. Unpack the archive to read it"
            )
        data = io.BytesIO()
        with self._turn, self._stream(file) as stream:
            while piece := stream.read(_PIECE):
                data.write(piece)
        data.seek(0)
        return data

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _tree(self) -> Tree: ...

    @abstractmethod
    def _stream(self, file: FileEntry) -> IO[bytes]: ...


def open_archive(path: Path) -> Archive:
    """Open a .zip, or a .tar that may be compressed."""
    return Zip(path) if path.suffix.lower() == ".zip" else Tar(path)


class Zip(Archive):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._archive = zipfile.ZipFile(path)

    def close(self) -> None:
        self._archive.close()

    def _tree(self) -> Tree:
        return {_normalise_name(info): self._entry(info) for info in self._archive.infolist()}

    def _entry(self, info: zipfile.ZipInfo) -> FileEntry | Link | None:
        if info.is_dir():
            return None
        if not stat.S_ISLNK(info.external_attr >> 16) or info.file_size > _PIECE:
            return FileEntry(info.file_size, info.filename)
        try:
            with self._archive.open(info) as file:
                return Link(os.fsdecode(file.read(_PIECE)))
        except Exception as error:
            return FileEntry(0, problem=describe_problem(error))

    def _stream(self, file: FileEntry) -> IO[bytes]:
        if self._archive.getinfo(file.at).flag_bits & 1:
            raise ImageError("it is encrypted. Unpack the archive to read it")
        return self._archive.open(file.at)


def _normalise_name(info: zipfile.ZipInfo) -> str:
    """The path of a zip's entry. Some programs on Windows write backslashes for slashes."""
    on_windows = info.create_system == 0
    return _keep_inside(info.filename.replace("\\", "/") if on_windows else info.filename)


class Tar(Archive):
    """A tar, compressed or not. Read files in their order: going back in a compressed one unpacks it from the start."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = _Bounded(_open_unpacked(path))
        try:
            self._archive = tarfile.TarFile(path, fileobj=self._file)  # type: ignore[arg-type]
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _tree(self) -> Tree:
        tree: Tree = {}
        for member in self._members():
            path = _keep_inside(member.name)
            if member.isdir():
                tree.setdefault(path, None)
            elif member.isfile():
                at = member.offset_data
                tree[path] = FileEntry(member.size, at if member.sparse is None else (at, member.sparse))
            elif member.issym():
                tree[path] = Link(member.linkname)
            elif member.islnk():  # another path of what came before
                tree[path] = tree.get(_keep_inside(member.linkname)) or FileEntry(
                    0, problem="is a link to what is not there"
                )
        return tree

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """The headers of all members. Raises ReadError for an archive that was cut, where tarfile would just end."""
        before = -1
        while True:
            member = self._archive.next()
            if member is None and not self._has_next_archive():
                return
            if member is None:
                continue
            if self._archive.offset <= before:
                raise tarfile.ReadError("a header leads back")
            before = self._archive.offset
            self._archive.members = []  # type: ignore[attr-defined] # which would keep them all
            yield member

    def _has_next_archive(self) -> bool:
        """Whether another archive follows the two empty blocks that end this one, as after `cat a.tar b.tar`."""
        empty = bytes(tarfile.BLOCKSIZE)
        self._file.seek(self._archive.offset)
        if self._file.read(2 * tarfile.BLOCKSIZE) != 2 * empty:
            raise tarfile.ReadError("the mark of its end is missing")
        while (block := self._file.read(tarfile.BLOCKSIZE)) == empty:
            pass
        try:
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:  # nothing follows, or something else
            return False
        self._archive.offset = self._file.tell() - tarfile.BLOCKSIZE
        return True

    def _stream(self, file: FileEntry) -> IO[bytes]:
        member = tarfile.TarInfo()
        member.size = file.size
        member.offset_data, member.sparse = file.at if isinstance(file.at, tuple) else (file.at, None)
        stream = self._archive.extractfile(member)
        assert stream is not None  # it is that for folders
        return stream


class _Bounded:
    """A stream that refuses to give more bytes at once than a header may have: a damaged one may ask for gigabytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable, self.close = stream.seek, stream.tell, stream.seekable, stream.close

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims to be {size:,} bytes long")
        return self._stream.read(size)


def _open_unpacked(path: Path) -> IO[bytes]:
    """The bytes of a file that may be compressed by gzip, bzip2 or xz, unpacked as they are read."""
    with open_file(path) as file:
        start = file.read(6)
    for mark, unpacker in _UNPACKERS.items():
        if start.startswith(mark):
            stream: IO[bytes] = unpacker.open(path)
            return stream
    return open_file(path)


def _keep_inside(path: str) -> str:
    """A path without parts that lead out of the archive: never absolute, no `..`, as programs that unpack take it."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _resolve_links(tree: Tree) -> Iterator[tuple[str, FileEntry]]:
    """Path and file of every file of a tree; links are followed as long as they stay inside it."""
    tree.pop("", None)  # the archive's own folder
    links = {path: found.text for path, found in tree.items() if isinstance(found, Link)}
    if not links:
        return ((path, found) for path, found in tree.items() if isinstance(found, FileEntry))
    children = _list_children(tree)

    def look(folder: str) -> Iterator[tuple[str, FileEntry | Folder]]:
        for name in children[folder]:
            path = f"{folder}/{name}" if folder else name
            if path in links:
                path = _follow_links(path, links)
            found = tree.get(path)
            if isinstance(found, FileEntry):
                yield name, found
            elif path in children:
                yield name, Folder(path, path)
            else:
                yield name, FileEntry(0, problem="is a link that leads out of the archive, or nowhere")

    return walk_files(Folder("", ""), look)


def _list_children(tree: Tree) -> dict[str, dict[str, None]]:
    """The names in each folder of a tree, in the archive's order."""
    children: dict[str, dict[str, None]] = {path: {} for path, found in tree.items() if found is None}
    children[""] = {}
    for path in tree:
        while path:
            folder, _, name = path.rpartition("/")
            if name in children.setdefault(folder, {}):
                break
            children[folder][name] = None
            path = folder
    return children


def _follow_links(path: str, links: Mapping[str, str]) -> str:
    """The path that a path with links stands for, as on Unix; _NOWHERE if they lead out or in a circle."""
    todo, done, followed = path.split("/")[::-1], list[str](), 0
    while todo:
        part = todo.pop()
        if part == ".." and done:
            done.pop()
        elif part == "..":
            return _NOWHERE
        elif part not in ("", "."):
            done.append(part)
        text = links.get("/".join(done))
        if text is not None:
            followed += 1
            if followed > _MOST_LINKS or text.startswith("/"):
                return _NOWHERE
            done.pop()
            todo += text.split("/")[::-1]
    return "/".join(done)
