"""Data sets: whatever holds many images is read image by image, always in the same order."""

from __future__ import annotations

import gzip
import inspect
import io
import os
import pickle
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vizcnn.errors import ImageError, ParameterError
from vizcnn.inputs import archives
from vizcnn.inputs.datasets import Images, ListedImages, TorchDataset, dataset
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.pixels import LARGEST
from vizcnn.models import _torchvision


def colour_of(i: int) -> tuple[int, int, int]:
    return 20 * i, 255 - 20 * i, 7 * i


def png(i: int, size: tuple[int, int] = (8, 6)) -> bytes:
    """A file of one colour that tells which image it is."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour_of(i)).save(buffer, "png")
    return buffer.getvalue()


def number_in(images: Images, i: int) -> int:
    """Which of the coloured images this is."""
    photo = images.read(i)[0]
    assert isinstance(photo, Photo)
    return round(float(photo.pixels[0, 0, 0]) * 255 / 20)


def folder_of(place: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(png(i))
    return place


def zip_of(place: Path, *names: str) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, png(i))
    return place


def tar_of(place: Path, *names: str, mode: str = "w") -> Path:
    with tarfile.open(place, mode) as archive:  # type: ignore[call-overload]
        for i, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size = len(png(i))
            archive.addfile(entry, io.BytesIO(png(i)))
    return place


def labels_of(images: Images) -> list[str | None]:
    return [images.read(i)[1] for i in range(len(images))]


class Coloured(Dataset[Any]):
    """A torch Dataset of whatever `made` makes of an image's number."""

    def __init__(self, made: Callable[[int], Any], length: int = 5) -> None:
        self.made, self.length = made, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        return self.made(i)


def pillow(i: int) -> Image.Image:
    return Image.new("RGB", (8, 6), colour_of(i))


# folders


def test_a_folder_is_read_with_its_sub_folders_in_the_order_of_paths(tmp_path: Path) -> None:
    images = dataset(folder_of(tmp_path, "b/2.png", "a/1.png", "a/deep/0.png", "c.png"))
    assert images.names == ["a/1.png", "a/deep/0.png", "b/2.png", "c.png"]
    assert [number_in(images, i) for i in range(4)] == [1, 2, 0, 3]
    assert labels_of(images) == ["a", "a", "b", None]


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    assert labels_of(dataset(folder_of(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png"))) == ["cat", "cat", "dog"]


def test_folders_that_all_images_share_are_no_classes(tmp_path: Path) -> None:
    images = dataset(folder_of(tmp_path, "data/val/cat/images/1.png", "data/val/dog/images/1.png"))
    assert labels_of(images) == ["cat", "dog"]
    assert labels_of(dataset(tmp_path / "data" / "val" / "cat")) == [None]


def test_a_folder_without_sub_folders_has_no_classes(tmp_path: Path) -> None:
    assert labels_of(dataset(folder_of(tmp_path, "1.png", "2.png"))) == [None, None]


def test_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png", "a/2.JPG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "labels.csv").write_text("a,b\n")
    assert dataset(tmp_path).names == ["a/1.png", "a/2.JPG"]


def test_a_link_back_to_a_folder_above_does_not_multiply_the_images(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    assert dataset(tmp_path).names == ["a/1.png", "b/2.png", "c/2.png"]


def test_names_that_are_no_unicode_are_kept(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder_of(tmp_path, "a/1.png")
    folder.mkdir()
    (folder / "2.png").write_bytes(png(1))
    images = dataset(tmp_path)
    assert len(images) == 2
    assert len(images.fingerprint) == 64
    assert number_in(images, 1) == 1


HIDDEN = (
    ".ipynb_checkpoints/1-checkpoint.png",
    "cat/._1.png",
    "cat/.thumbnails/1.png",
    "__MACOSX/cat/._1.png",
    "__MACOSX/dog/2.png",
    "dog/@eaDir/2.png",
)


@pytest.mark.parametrize("make", [folder_of, zip_of, tar_of])
def test_what_systems_hide_or_add_is_no_image_and_no_class(make: Callable[..., Path], tmp_path: Path) -> None:
    images = dataset(
        make(
            tmp_path / {"zip_of": "x.zip", "tar_of": "x.tar"}.get(make.__name__, "x"), "cat/1.png", "dog/2.png", *HIDDEN
        )
    )
    assert images.names == ["cat/1.png", "dog/2.png"]
    assert labels_of(images) == ["cat", "dog"]


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path: Path) -> None:
    assert dataset(folder_of(tmp_path / ".cache", "1.png")).names == ["1.png"]
    made = zip_of(tmp_path / "x.zip", ".cache/a/1.png", ".cache/.b/2.png", "3.png")
    assert dataset(made / ".cache").names == ["a/1.png"]


def test_a_folder_that_may_not_be_read_is_one_unreadable_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.scandir

    def scandir(folder: str) -> Any:
        if Path(folder).name == "dog":
            raise PermissionError(13, "Permission denied", folder)
        return look(folder)

    folder_of(tmp_path, "cat/1.png", "dog/2.png", "rat/3.png")
    monkeypatch.setattr(os, "scandir", scandir)
    images = dataset(tmp_path)
    assert images.names == ["cat/1.png", "dog/", "rat/3.png"]
    assert [images.read(i)[1] for i in (0, 2)] == ["cat", "rat"]
    with pytest.raises(ImageError, match=r"^dog/ may not be read: permission denied"):
        images.read(1)
    with pytest.raises(ImageError, match=r"/dog may not be read: permission denied"):
        dataset(tmp_path / "dog")


def test_a_folder_may_be_deeper_than_the_stack(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*(200 * "d"))
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(png(3))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        images = dataset(tmp_path)
    finally:
        sys.setrecursionlimit(before)
    assert len(images) == 1
    assert number_in(images, 0) == 3


def test_links_that_multiply_are_refused(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}").mkdir()
        for way in "ab":
            (tmp_path / f"{i}" / way).symlink_to(tmp_path / f"{i + 1}", target_is_directory=True)
    folder_of(tmp_path, "30/1.png")
    with pytest.raises(ImageError, match="in more than 1000 ways"):
        dataset(tmp_path)


def test_a_link_that_leads_nowhere_is_an_unreadable_image(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").symlink_to("nowhere.png")
    (tmp_path / "a" / "notes.txt").symlink_to("nowhere.txt")
    (tmp_path / "b").symlink_to(tmp_path / "gone", target_is_directory=True)
    images = dataset(tmp_path)
    assert images.names == ["a/1.png", "a/2.png", "b"]
    for i in (1, 2):
        with pytest.raises(ImageError, match=rf"{images.names[i]} is a link that leads nowhere"):
            images.read(i)


@pytest.mark.usefixtures("in_time")
def test_a_pipe_is_no_data_set_and_no_list_of_labels(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(ImageError, match=r"x\.zip is a pipe"):
        dataset(tmp_path / "x.zip")
    with pytest.raises(ParameterError, match=r"the labels .* cannot be read: .*x\.zip is a pipe"):
        dataset(tmp_path / "a", tmp_path / "x.zip")


@pytest.mark.parametrize("make", [Path.mkdir, lambda p: zip_of(p.with_suffix(".zip"))])
def test_a_place_without_images_is_an_error(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    place = tmp_path / "empty"
    with pytest.raises(ImageError, match="empty(.zip)? holds no images"):
        dataset(make(place) or place)


def test_a_place_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere does not exist"):
        dataset(tmp_path / "nowhere")


def test_a_single_file_and_a_sample_are_data_sets_of_one(photo_file: Path) -> None:
    assert dataset(photo_file).names == ["photo.png"]
    assert dataset("sample:china").read(0)[0].size == (427, 640)


def test_a_file_that_is_no_image_is_known_when_it_is_read(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png", "a/2.png", "a/3.png")
    (tmp_path / "a" / "2.png").write_text("no image")
    (tmp_path / "a" / "3.png").write_bytes(b"")
    images = dataset(tmp_path)
    assert number_in(images, 0) == 0
    with pytest.raises(ImageError, match=r"2\.png is not an image"):
        images.read(1)
    with pytest.raises(ImageError, match=r"3\.png is empty"):
        images.read(2)


def test_an_empty_file_where_the_program_was_started_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "photos", "1.png")
    (tmp_path / "1.png").touch()
    monkeypatch.chdir(tmp_path)
    assert number_in(dataset("photos"), 0) == 0


def test_a_relative_folder_stays_the_same_when_the_program_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "photos", "1.png")
    monkeypatch.chdir(tmp_path)
    images, single = dataset("photos"), dataset("photos/1.png")
    monkeypatch.chdir("/")
    assert number_in(images, 0) == number_in(single, 0) == 0


# archives

ARCHIVES: list[tuple[str, Callable[..., Path]]] = [
    ("x.zip", zip_of),
    ("x.tar", tar_of),
    ("x.tar.gz", lambda *a: tar_of(*a, mode="w:gz")),
    ("x.tgz", lambda *a: tar_of(*a, mode="w:gz")),
    ("x.tar.xz", lambda *a: tar_of(*a, mode="w:xz")),
]


@pytest.fixture(params=ARCHIVES, ids=[name for name, _ in ARCHIVES])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, make = request.param
    made: Path = make(tmp_path / name, "val/dog/1.png", "val/cat/0.png", "val/cat/2.png", "readme.txt", "other/3.png")
    return made


def test_an_archive_is_read_as_the_same_folder_is(archive: Path) -> None:
    images = dataset(archive)
    assert images.names == ["other/3.png", "val/cat/0.png", "val/cat/2.png", "val/dog/1.png"]
    assert [number_in(images, i) for i in (3, 1, 2, 0, 3)] == [0, 1, 2, 4, 0]
    assert labels_of(images) == ["other", "val", "val", "val"]


def test_a_folder_inside_an_archive_is_a_data_set(archive: Path) -> None:
    images = dataset(archive / "val")
    assert images.names == ["cat/0.png", "cat/2.png", "dog/1.png"]
    assert [number_in(images, i) for i in range(3)] == [1, 2, 0]
    assert labels_of(images) == ["cat", "cat", "dog"]
    assert images.fingerprint != dataset(archive).fingerprint
    with pytest.raises(ImageError, match="holds no images"):
        dataset(archive / "va")


def test_an_archive_can_be_read_from_several_processes(archive: Path) -> None:
    images = dataset(archive)
    assert number_in(images, 0) == 4  # it is open here already
    sent = pickle.loads(pickle.dumps(images))
    assert [number_in(sent, i) for i in range(4)] == [4, 1, 2, 0]
    forked = DataLoader(_Numbers(images), batch_size=None, num_workers=2)
    assert list(forked) == [4, 1, 2, 0] * 6
    assert number_in(images, 1) == 1


class _Numbers(Dataset[int]):
    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> int:
        if i >= 24:
            raise IndexError
        return number_in(self.images, i % 4)


def test_the_same_files_have_one_fingerprint_in_a_folder_and_in_archives(tmp_path: Path) -> None:
    names = ("a/1.png", "b/2.png")
    ways = folder_of(tmp_path / "plain", *names), zip_of(tmp_path / "x.zip", *names), tar_of(tmp_path / "x.tar", *names)
    assert len({dataset(way).fingerprint for way in ways}) == 1


def test_an_archive_of_dot_is_read_like_any_other(tmp_path: Path) -> None:
    made = tar_of(tmp_path / "x.tar", "./val/cat/1.png", "./val/dog/2.png")  # tar -cf x.tar .
    assert dataset(made).names == ["val/cat/1.png", "val/dog/2.png"]
    assert labels_of(dataset(made / "val")) == ["cat", "dog"]


def test_of_an_entry_that_was_replaced_the_last_one_counts(tmp_path: Path) -> None:
    made = tar_of(tmp_path / "x.tar", "a.png", "b.png")
    with tarfile.open(made, "a") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(png(7, (64, 50)))
        archive.addfile(entry, io.BytesIO(png(7, (64, 50))))
    images = dataset(made)
    assert images.names == ["a.png", "b.png"]
    assert [number_in(images, i) for i in range(2)] == [7, 1]


def test_names_that_lead_out_of_an_archive_stay_inside(tmp_path: Path) -> None:
    made = tar_of(tmp_path / "x.tar", "/abs/0.png", "rel/1.png", "../up/2.png", "rel/./../3.png")
    assert dataset(made).names == ["abs/0.png", "rel/1.png", "rel/3.png", "up/2.png"]


def test_a_zip_made_on_windows_has_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i, name in enumerate(("cat/1.png", "dog/2.png")):
            info = zipfile.ZipInfo(name)
            info.create_system, info.filename = 0, name.replace("/", "\\")
            archive.writestr(info, png(i))
    images = dataset(tmp_path / "x.zip")
    assert labels_of(images) == ["cat", "dog"]
    assert [number_in(images, i) for i in range(2)] == [0, 1]


LINKS = {
    "dog/2.png": "../cat/1.png",
    "dog/3.png": "2.png",
    "bird": "cat",
    "all/cats": "../bird/../cat",
    "cat/up": "..",
    "ape/5.png": "../bird/1.png",
}


def with_links(place: Path, links: dict[str, str]) -> Path:
    """cat/0.png and cat/1.png, and links by their text."""
    made = (zip_of if place.suffix == ".zip" else tar_of)(place, "cat/0.png", "cat/1.png")
    if place.suffix == ".zip":
        with zipfile.ZipFile(made, "a") as packed:
            for name, text in links.items():
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                packed.writestr(info, text)
        return made
    with tarfile.open(made, "a") as archive:
        for name, text in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, text
            archive.addfile(entry)
    return made


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_links_in_an_archive_lead_where_they_lead_in_a_folder(ending: str, tmp_path: Path) -> None:
    unpacked = folder_of(tmp_path / "x", "cat/0.png", "cat/1.png")
    for name, text in LINKS.items():
        (unpacked / name).parent.mkdir(exist_ok=True)
        (unpacked / name).symlink_to(text)
    packed, plain = dataset(with_links(tmp_path / f"x.{ending}", LINKS)), dataset(unpacked)
    assert packed.names == plain.names
    assert labels_of(packed) == labels_of(plain)
    assert {"ape", "bird", "cat", "dog"} <= set(labels_of(packed))
    everything = range(len(plain))
    assert [number_in(packed, i) for i in everything] == [number_in(plain, i) for i in everything]
    assert packed.fingerprint == plain.fingerprint


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_links_that_lead_out_of_an_archive_are_unreadable_images(ending: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    links = {
        "a/1.png": str(tmp_path / "secret.png"),
        "b/2.png": "../../cat/0.png",
        "c/3.png": "4.png",
        "d/5.png": "5.png",
        "cat/6.png": "/0.png",
        "dog": "/nowhere/dog",
        "README.md": "/nowhere/README.md",
    }
    images = dataset(with_links(tmp_path / f"x.{ending}", links))
    assert images.names == ["a/1.png", "b/2.png", "c/3.png", "cat/0.png", "cat/1.png", "cat/6.png", "d/5.png", "dog"]
    for i in (0, 1, 2, 5, 6, 7):
        with pytest.raises(ImageError, match=rf"{images.names[i]} is a link that leads out of the archive, or nowhere"):
            images.read(i)


def test_hard_links_in_an_archive_are_what_they_link_to(tmp_path: Path) -> None:
    made = tar_of(tmp_path / "x.tar", "cat/0.png", "cat/1.png")
    with tarfile.open(made, "a") as archive:
        for name, text in (("dog/2.png", "cat/1.png"), ("dog/3.png", "./dog/2.png"), ("bird/4.png", "bird/5.png")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.LNKTYPE, text
            archive.addfile(entry)
    images = dataset(made)
    assert images.names == ["bird/4.png", "cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"]
    assert [number_in(images, i) for i in (3, 4)] == [1, 1]
    with pytest.raises(ImageError, match=r"bird/4\.png is a link to what is not there"):
        images.read(0)


def test_a_sparse_file_is_read_with_its_holes(tmp_path: Path) -> None:
    """As `tar --sparse` writes it: pieces, and where they belong."""
    pixels = np.zeros((100, 100), np.uint8)
    pixels[50:] = 255
    whole = b"P5 100 100 255\n" + pixels.tobytes()
    pieces = [(0, 512), (4608, len(whole) - 4608)]
    entry = tarfile.TarInfo("a.pgm")
    entry.size, entry.type = sum(size for _, size in pieces), tarfile.GNUTYPE_SPARSE
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    numbers = [number for piece in pieces for number in piece]
    header[386 : 386 + 48] = b"".join(b"%011o\0" % number for number in numbers)
    header[483:495] = b"%011o\0" % len(whole)
    header[148:156] = bytes(8).replace(b"\0", b" ")
    header[148:156] = b"%06o\0 " % sum(header)
    packed = b"".join(whole[at : at + size] for at, size in pieces)
    (tmp_path / "x.tar").write_bytes(bytes(header) + packed + bytes(-len(packed) % 512 + 1024))
    photo = dataset(tmp_path / "x.tar").read(0)[0]
    assert isinstance(photo, Photo)
    np.testing.assert_array_equal(photo.pixels[:, :, 0], pixels / 255)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_an_archive_that_was_cut_anywhere_is_refused(ending: str, tmp_path: Path) -> None:
    names = [f"{i % 3}/{i}.png" for i in range(12)]
    whole = tar_of(tmp_path / f"y.{ending}", *names, mode=f"w:{ending.partition('.')[2]}").read_bytes()
    before_end = len(whole) - (10240 - 12 * 1024 % 10240 if ending == "tar" else 1)
    for at in {*range(1, before_end, max(1, before_end // 40)), before_end}:
        (tmp_path / f"x.{ending}").write_bytes(whole[:at])
        with pytest.raises(ImageError, match=r"damaged or truncated"):
            dataset(tmp_path / f"x.{ending}")


def test_an_archive_with_a_damaged_header_is_not_one_that_ends_there(tmp_path: Path) -> None:
    made = tar_of(tmp_path / "x.tar", "1.png", "2.png", "3.png")
    damaged = bytearray(made.read_bytes())
    damaged[1024 + 100] ^= 1  # the second header
    made.write_bytes(damaged)
    with pytest.raises(ImageError, match=r"damaged or truncated"):
        dataset(made)


def test_archives_that_were_joined_are_read_to_the_last(tmp_path: Path) -> None:
    joined = tar_of(tmp_path / "1.tar", "a/0.png", "b/1.png").read_bytes()
    joined += tar_of(tmp_path / "2.tar", "c/0.png", "c/1.png").read_bytes()
    (tmp_path / "x.tar").write_bytes(joined)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(joined + b"and something that is no archive"))
    for name in ("x.tar", "x.tar.gz"):
        images = dataset(tmp_path / name)
        assert images.names == ["a/0.png", "b/1.png", "c/0.png", "c/1.png"]
        assert [number_in(images, i) for i in range(4)] == [0, 1, 0, 1]


@pytest.mark.usefixtures("in_time")
def test_a_header_that_leads_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    header = bytearray(entry.tobuf())
    header[124:136] = struct.pack(">Iq", 0xFFFFFFFF, -1024)  # its size
    header[148:156] = bytes(8).replace(b"\0", b" ")
    header[148:156] = b"%06o\0 " % sum(header)
    start = tarfile.TarInfo("b.png").tobuf() + tarfile.TarInfo("c.png").tobuf()
    (tmp_path / "x.tar").write_bytes(start + header + bytes(2048))
    with pytest.raises(ImageError, match=r"damaged or truncated"):
        dataset(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_is_not_read_however_long_it_is(kind: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.type, entry.size = kind, 2 << 20
    (tmp_path / "x.tar").write_bytes(entry.tobuf() + bytes(3 << 20))
    with pytest.raises(ImageError, match=r"a header claims to be 2,097,152 bytes long"):
        dataset(tmp_path / "x.tar")


def test_a_file_that_would_fill_the_memory_is_not_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archives.LARGEST_FILE >= 3 * LARGEST + 1000
    images = dataset(archive)
    monkeypatch.setattr(archives, "LARGEST_FILE", 50)
    with pytest.raises(
        ImageError, match=r"other/3\.png: it has [0-9]+ bytes unpacked, more than 50. Unpack the archive"
    ):
        images.read(0)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_more_is_unpacked_than_a_header_says(packing: int, tmp_path: Path) -> None:
    """Though much more is there."""
    made = tmp_path / "x.zip"
    with zipfile.ZipFile(made, "w", packing) as archive:
        archive.writestr("a.png", png(0) + bytes(1 << 20))
    size = struct.pack("<I", len(png(0)) + (1 << 20))
    made.write_bytes(made.read_bytes().replace(size, struct.pack("<I", 2000)))
    images = dataset(made)
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded, it is damaged"):
        images.read(0)


def test_an_encrypted_file_is_not_called_damaged(tmp_path: Path) -> None:
    made = zip_of(tmp_path / "x.zip", "a.png")
    marked = bytearray(made.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        marked[marked.index(start) + flags] |= 1
    made.write_bytes(marked)
    with pytest.raises(ImageError, match=r"a\.png: it is encrypted. Unpack the archive"):
        dataset(made).read(0)


def test_threads_read_an_archive_in_turn(archive: Path) -> None:
    images, wanted, before = dataset(archive), [i for _ in range(60) for i in (0, 3, 1, 2)], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda i: number_in(images, i), wanted)) == [[4, 1, 2, 0][i] for i in wanted]
    finally:
        sys.setswitchinterval(before)


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    place = tmp_path / "x.zip"
    place.write_bytes(zip_of(tmp_path / "y.zip", "a.png").read_bytes()[:-30])
    with pytest.raises(ImageError, match=r"x\.zip cannot be decoded, it is damaged or truncated"):
        dataset(place)
    (tmp_path / "x.tar").write_text("no archive")
    with pytest.raises(ImageError, match=r"x\.tar cannot be decoded"):
        dataset(tmp_path / "x.tar")


def test_a_damaged_image_in_an_archive_is_known_when_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", png(0)[:-30])
        archive.writestr("b.png", b"")
        archive.writestr("c.png", png(2))
    images = dataset(tmp_path / "x.zip")
    for i, reason in ((0, r"a\.png cannot be decoded, it is damaged"), (1, r"b\.png is empty")):
        with pytest.raises(ImageError, match=reason):
            images.read(i)
    assert number_in(images, 2) == 2


# labels from a file or a mapping


@pytest.mark.parametrize(
    "text",
    [
        "a/1.png,cat\nb/2.png,dog\n",
        "a/1.png\tcat\tmore, columns\nb/2.png\tdog\t\n",
        "\ufeffa/1.png , cat\r\n\r\n2.png,dog,12,13\r\n",
        'name,class\n1.png,"cat"\n2.png,dog\n',
        "1.png,cat\n2.png,dog\n3.png,\n",
    ],
)
def test_labels_come_from_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    images = dataset(folder_of(tmp_path, "a/1.png", "b/2.png", "b/3.png"), tmp_path / "labels.txt")
    assert labels_of(images) == ["cat", "dog", None]


def test_labels_come_from_a_mapping_of_whatever_values(tmp_path: Path) -> None:
    images = dataset(folder_of(tmp_path, "a/1.png", "b/2.png"), {"1.png": "x", "b/2.png": 3})
    assert labels_of(images) == ["x", "3"]
    assert not images.numbered


def test_labels_are_numbers_where_all_are_given_as_numbers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "1/1.png", "2/2.png")
    assert not dataset(folder).numbered
    assert dataset(folder, {"1.png": 1, "2.png": 0}).numbered
    tensors = torch.utils.data.TensorDataset(torch.rand(2, 3, 8, 8), torch.tensor([1, 0]))
    assert dataset(tensors).numbered


def test_labels_in_a_list_are_refused_with_what_to_do() -> None:
    with pytest.raises(ParameterError, match=r"got list\. .*TensorDataset\(images, labels\)"):
        dataset(torch.rand(2, 3, 8, 8), ["a", "b"])  # type: ignore[arg-type]


def test_labels_that_name_no_image_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png")
    with pytest.raises(ParameterError, match=r"name none of the images, which are named like 'a/1\.png'"):
        dataset(tmp_path, {"x.png": "cat"})
    with pytest.raises(ParameterError, match=r"labels .*nowhere.csv cannot be read"):
        dataset(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(ParameterError, match=r"labels .*1.png cannot be read"):
        dataset(tmp_path, tmp_path / "a" / "1.png")
    (tmp_path / "open.csv").write_text('a/1.png,"cat\nb/2.png,dog\n')  # the quote would take all lines that follow
    with pytest.raises(ParameterError, match=r"labels .*open.csv cannot be read: unexpected end of data"):
        dataset(tmp_path, tmp_path / "open.csv")


# torch data sets


@pytest.mark.parametrize(
    "made",
    [pillow, lambda i: np.asarray(pillow(i)), lambda i: np.asarray(pillow(i), np.float32) / 255],
    ids=["pillow", "uint8", "float"],
)
def test_a_torch_dataset_gives_photographs(made: Callable[[int], Any]) -> None:
    images = dataset(Coloured(made))
    assert isinstance(images, TorchDataset)
    assert images.names == ["0", "1", "2", "3", "4"]
    assert [number_in(images, i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert labels_of(images) == [None] * 5


def test_a_torch_dataset_of_tensors_gives_inputs() -> None:
    images = dataset(Coloured(lambda i: (torch.full((3, 4, 4), i / 5), i)))
    image, label = images.read(2)
    assert isinstance(image, torch.Tensor)
    assert image.shape == (3, 4, 4)
    assert label == "2"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (1, "dog"),
        (np.int64(1), "dog"),
        (torch.tensor(0), "cat"),
        ("bird", "bird"),
        (7, "7"),
        (-1, "-1"),  # what torchvision's STL10 calls unlabelled
        (None, None),
        (torch.tensor([0, 1, 1]), None),  # an image of many labels has no class
        ({"boxes": []}, None),
    ],
)
def test_numbers_are_named_by_the_datasets_own_classes(label: Any, name: str | None) -> None:
    held = Coloured(lambda i: (pillow(i), label))
    held.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    assert labels_of(dataset(held)) == [name] * 5


def image_folder(place: Path) -> Any:
    _torchvision.import_models()  # mends an installation whose compiled operators are missing
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(place))


def test_a_torchvision_folder_is_read_as_ours_is(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    theirs, ours = dataset(image_folder(tmp_path)), dataset(tmp_path)
    assert labels_of(theirs) == labels_of(ours)
    assert [number_in(theirs, i) for i in range(3)] == [number_in(ours, i) for i in range(3)]


def test_a_file_that_a_torch_dataset_cannot_read_is_one_unreadable_image(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    (tmp_path / "cat" / "2.png").write_text("no image")
    images = dataset(image_folder(tmp_path))
    with pytest.raises(ImageError, match="cannot identify image|not an image"):
        images.read(1)
    assert number_in(images, 2) == 2
    assert len(images.fingerprint) == 64


def test_a_mistake_in_a_torch_dataset_is_no_unreadable_image() -> None:
    with pytest.raises(AttributeError):
        dataset(Coloured(lambda i: i.no_such_thing)).read(0)  # type: ignore[attr-defined]


# lists and tensors


def test_lists_may_mix_files_pillow_images_and_arrays(photo_file: Path) -> None:
    images = dataset([photo_file, pillow(1), np.asarray(pillow(2))])
    assert isinstance(images, ListedImages)
    assert len(images) == 3
    assert images.names[0] == "photo.png"
    assert [number_in(images, i) for i in (1, 2)] == [1, 2]


def test_a_batch_of_tensors_is_as_many_images() -> None:
    batch = torch.rand(4, 3, 5, 6)
    for source in (batch, list(batch), [batch[:2], batch[2], batch[3:]]):
        images = dataset(source)
        assert len(images) == 4
        assert torch.equal(images.read(3)[0], batch[3])  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", [[], torch.empty(0, 3, 8, 8), Coloured(pillow, 0)])
def test_nothing_is_refused(nothing: Any) -> None:
    with pytest.raises(ImageError, match="holds no images"):
        dataset(nothing)


@pytest.mark.parametrize("thing", [3, object(), iter([])])
def test_what_is_no_data_set_is_refused(thing: Any) -> None:
    with pytest.raises(ImageError, match="an image is a path, an open file, a Pillow image or an array, got"):
        dataset(thing).read(0)


def test_a_listed_file_that_cannot_be_read_does_not_spoil_the_others(photo_file: Path) -> None:
    bad = photo_file.with_name("bad.png")
    bad.write_text("no image")
    images = dataset([photo_file, bad, photo_file.with_name("nowhere.png")])
    assert len(images.fingerprint) == 64
    assert images.read(0)[0].size == (60, 90)
    for i in (1, 2):
        with pytest.raises(ImageError):
            images.read(i)


# fingerprints


def test_equal_data_sets_have_equal_fingerprints(tmp_path: Path) -> None:
    one, other = (folder_of(tmp_path / name, "a/1.png", "b/2.png") for name in "xy")
    assert dataset(one).fingerprint == dataset(other).fingerprint
    assert dataset(Coloured(pillow)).fingerprint == dataset(Coloured(pillow)).fingerprint
    batch = torch.rand(2, 3, 4, 4)
    assert dataset(batch).fingerprint == dataset(list(batch.clone())).fingerprint
    assert dataset(one, {"1.png": "x"}).fingerprint == dataset(other, {"a/1.png": "x"}).fingerprint


def test_whatever_differs_changes_the_fingerprint(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "first", "a/1.png", "b/2.png")
    renamed = folder_of(tmp_path / "renamed", "a/1.png", "b/3.png")
    moved = folder_of(tmp_path / "moved", "a/1.png", "c/2.png")
    more = folder_of(tmp_path / "more", "a/1.png", "b/2.png", "b/3.png")
    larger = folder_of(tmp_path / "larger", "a/1.png", "b/2.png")
    (larger / "a" / "1.png").write_bytes(png(0) + b"more")
    found = [dataset(p) for p in (first, renamed, moved, more, larger)]
    found += [dataset(first, {"1.png": "x"}), dataset(first, {"1.png": "y"}), dataset(first, {"2.png": "x"})]
    assert len({each.fingerprint for each in found}) == len(found)


def test_torch_datasets_and_lists_differ_by_what_they_hold() -> None:
    ways: list[Any] = [
        Coloured(pillow),
        Coloured(pillow, 4),
        Coloured(lambda i: pillow(i + 1)),
        Coloured(lambda i: (pillow(i), 0)),
        Coloured(lambda i: (pillow(i), 1)),
        [pillow(0), pillow(1)],
        [pillow(1), pillow(0)],
        torch.zeros(2, 3, 4, 4),
        torch.ones(2, 3, 4, 4),
        torch.zeros(2, 3, 2, 8),
    ]
    assert len({dataset(way).fingerprint for way in ways}) == len(ways)
