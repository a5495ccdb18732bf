"""Data sets: whatever holds many images is read image by image, always in the same order."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vizcnn import _torchvision
from vizcnn.dataset import Images, Listed, TorchDataset, dataset
from vizcnn.errors import ImageError, ParameterError
from vizcnn.images import Photo


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
    ],
)
def test_labels_come_from_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    images = dataset(folder_of(tmp_path, "a/1.png", "b/2.png", "b/3.png"), tmp_path / "labels.txt")
    assert labels_of(images) == ["cat", "dog", None]


def test_labels_come_from_a_mapping_of_whatever_values(tmp_path: Path) -> None:
    images = dataset(folder_of(tmp_path, "a/1.png", "b/2.png"), {"1.png": "x", "b/2.png": 3})  # type: ignore[dict-item]
    assert labels_of(images) == ["x", "3"]


def test_labels_that_name_no_image_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png")
    with pytest.raises(ParameterError, match=r"name none of the images, which are named like 'a/1\.png'"):
        dataset(tmp_path, {"x.png": "cat"})
    with pytest.raises(ParameterError, match=r"labels .*nowhere.csv cannot be read"):
        dataset(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(ParameterError, match=r"labels .*1.png cannot be read"):
        dataset(tmp_path, tmp_path / "a" / "1.png")


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
    _torchvision.models()  # mends an installation whose compiled operators are missing
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
    assert isinstance(images, Listed)
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
    with pytest.raises(ImageError, match="an image is a path, a Pillow image or an array, got"):
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
