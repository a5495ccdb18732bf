"""Many images: whatever gives them is asked for one after the other, and no more than one is held at full size."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support import small_cnn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import vizcnn
from vizcnn.errors import ImageError, ShapeError, VizcnnWarning
from vizcnn.inputs import dataset

Levels = npt.NDArray[np.uint8]


def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, labels=list("abcde"), name="small")


def pictures(count: int = 3, size: tuple[int, int] = (20, 24)) -> list[Levels]:
    return [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i in range(count)]


def explain(images: Any, **options: Any) -> vizcnn.Heatmap:
    return vizcnn.Saliency()(model(), images, "b", progress=False, **options)


class Numbered(Dataset[tuple[Image.Image, int]]):
    def __init__(self, images: list[Levels]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[i]), i


class Flowing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[Levels, int]]:
        return iter([(image, i) for i, image in enumerate(pictures())])

    def __len__(self) -> int:
        return 3


def in_memory(image: Levels) -> io.BytesIO:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data


SOURCES: dict[str, Callable[[], Any]] = {
    "generator": lambda: (image for image in pictures()),
    "generator of pairs": lambda: ((image, "label") for image in pictures()),
    "map": lambda: map(Image.fromarray, pictures()),
    "torch Dataset": lambda: Numbered(pictures()),
    "torch IterableDataset": Flowing,
    "list with a generator": lambda: [pictures()[0], (image for image in pictures()[1:])],
    "files in memory": lambda: map(in_memory, pictures()),
    "data set": lambda: dataset(pictures()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_gives_images_is_as_good_as_their_list(kind: str) -> None:
    found, right = explain(SOURCES[kind]()), explain(pictures())
    np.testing.assert_array_equal(found.values, right.values)
    assert [digest for _, digest in found.provenance.images] == [digest for _, digest in right.provenance.images]


def test_a_loaders_batches_are_inputs() -> None:
    inputs = [(torch.from_numpy(image[:16, :16]).permute(2, 0, 1) / 255, i) for i, image in enumerate(pictures(5))]
    found = explain(DataLoader(inputs, batch_size=2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.values, explain(torch.stack([one for one, _ in inputs])).values)


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3, 4, 5]])
def test_no_path_of_a_loaders_batches_is_lost(tmp_path: Path, labels: list[int] | None) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, image in zip(paths, pictures(6), strict=True):
        Image.fromarray(image).save(path)
    items: Any = list(zip(paths, labels, strict=True)) if labels else paths
    found = explain(DataLoader(items, batch_size=4))
    assert [photo.name for photo in found.photos] == [Path(path).name for path in paths]
    halves = explain(iter([paths[:3], paths[3:]]))
    np.testing.assert_array_equal(found.values, halves.values)


def test_a_nameless_image_that_is_left_out_is_named_by_its_place() -> None:
    bad = [np.zeros((2, 2, 7)), io.BytesIO(b"none")]
    with pytest.warns(VizcnnWarning, match="3 images were left out"):
        found = explain([pictures()[0], *bad, torch.full((3, 16, 16), 2.0)])
    assert [name for name, _ in found.refused] == ["image 2", "image 3", "tensor 4"]


def test_a_folder_with_sub_folders_is_read_as_a_data_set(tmp_path: Path) -> None:
    for i, image in enumerate(pictures()):
        (tmp_path / f"class {i}").mkdir()
        Image.fromarray(image).save(tmp_path / f"class {i}" / "a.png")
    (tmp_path / "class 1" / "bad.png").write_text("no image")
    with pytest.raises(ImageError, match=r"in Python, vizcnn.inputs.dataset\(folder\) reads sub-folders too"):
        explain(tmp_path)
    with pytest.warns(VizcnnWarning, match="1 image was left out"):
        found = explain(dataset(tmp_path))
    np.testing.assert_array_equal(found.values, explain(pictures()).values)
    ((name, reason),) = found.refused
    assert name == "class 1/bad.png"
    assert "is not an image" in reason


def test_one_photograph_at_a_time_is_held() -> None:
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def count() -> int:
        gc.collect()
        return sum(ref() is not None for ref in held)

    def take() -> Iterator[vizcnn.Photo]:
        for image in pictures(6, (1200, 1100)):
            alive.append(count())
            photo = vizcnn.open_photo(image)
            held.append(weakref.ref(photo.held))
            yield photo
            del photo

    found = explain(take())
    assert len(alive) == 6
    assert max(alive) <= 1  # the one before, while the next is asked for
    assert {photo.size for photo in found.photos} == {(1200, 1100)}
    assert count() == 0


def test_ctrl_c_while_images_are_read_keeps_nothing() -> None:
    def stop() -> Iterator[Levels]:
        yield pictures()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        explain(stop())
    assert not isinstance(caught.value, vizcnn.Interrupted)


def test_one_bad_image_of_an_iterator_is_left_out() -> None:
    mixed: list[Any] = [*pictures(2), "nowhere.png", 3, *pictures(1)]
    with pytest.warns(VizcnnWarning, match="2 images were left out"):
        found = explain(iter(mixed))
    assert found.refused[0][0] == "nowhere.png"
    assert "got int" in found.refused[1][1]
    assert len(found.values) == 3
    with pytest.raises(ImageError, match="nowhere.png does not exist"):
        explain(iter(mixed), strict=True)


def tensor(i: int) -> torch.Tensor:
    return torch.from_numpy(pictures(i + 1, (16, 16))[i]).permute(2, 0, 1) / 255  # (3, 16, 16)


BAD_TENSORS = {
    "NaN": (
        tensor(1).index_fill(1, torch.tensor(2), torch.nan),
        r"values in \[0, 1\], got nan\.\.nan\. Pass images before",
    ),
    "too bright": (tensor(1) + 1, r"values in \[0, 1\], got 1\.?\d*\.\.2\. Pass images before normalisation"),
    "normalised": (tensor(1) - 0.5, r"values in \[0, 1\], got -0\.5\.\.0\.5\. Pass images before normalisation"),
    "wrong channels": (tensor(1)[:2], r"is \(3, H, W\) or a batch of these, got \(2, 16, 16\)"),
    "without images": (torch.empty(0, 3, 16, 16), r"is empty: \(0, 3, 16, 16\)\. Pass at least one image"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_tensor_among_good_images_is_left_out(kind: str, place: int) -> None:
    bad, reason = BAD_TENSORS[kind]
    mixed = [tensor(0), tensor(2)]
    mixed.insert(place, bad)
    with pytest.warns(VizcnnWarning, match=f"1 image was left out.* tensor {place + 1}: .*{reason}") as warned:
        found = explain(mixed)
    assert len(warned) == 1
    np.testing.assert_array_equal(found.values, explain([tensor(0), tensor(2)]).values)
    for images, strict in ((mixed, True), (bad, False), ([bad], False), ([bad, bad], False)):
        with pytest.raises(ShapeError, match=reason) as caught:
            explain(images, strict=strict)
        assert str(caught.value) == f"Saliency on small: {found.refused[0][1]}"
    assert [name for name, _ in found.refused] == [f"tensor {place + 1}"]


def test_one_bad_image_of_a_batch_is_left_out() -> None:
    batch = torch.stack([tensor(0), tensor(1) * torch.nan, tensor(2), tensor(3) + 1])
    with pytest.warns(VizcnnWarning, match=r"2 images were left out.* tensor 2, image 2: .* got nan\.\.nan") as warned:
        found = explain([tensor(4), batch])
    assert len(warned) == 1
    np.testing.assert_array_equal(found.values, explain([tensor(4), tensor(0), tensor(2)]).values)
    assert [name for name, _ in found.refused] == ["tensor 2, image 2", "tensor 2, image 4"]
    for images, strict in ((batch[[1, 3]], False), (batch, True)):
        with pytest.raises(ShapeError, match="got nan"):
            explain(images, strict=strict)


def test_bad_tensors_are_not_held_while_others_are_read() -> None:
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def take() -> Iterator[torch.Tensor]:
        for i in range(6):
            gc.collect()
            alive.append(sum(ref() is not None for ref in held))
            bad = tensor(i) + 1
            held.append(weakref.ref(bad))
            yield bad
            del bad
        yield tensor(0)

    with pytest.warns(VizcnnWarning, match="6 images were left out"):
        explain(take())
    assert max(alive) <= 2  # the first, of which the error may be raised, and the one before


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_folder_without_images_among_good_images_is_left_out(place: int, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    mixed: list[Any] = pictures(2)
    mixed.insert(place, folder)
    for images in (mixed, iter(mixed)):
        with pytest.warns(VizcnnWarning, match="1 image was left out.*empty holds no images"):
            found = explain(images)
        np.testing.assert_array_equal(found.values, explain(pictures(2)).values)
        assert [name for name, _ in found.refused] == [str(folder)]
    alone: list[Any] = [folder, str(folder), [folder]]
    for source in (*alone, mixed):
        with pytest.raises(ImageError, match="empty holds no images. Name a file, or a folder with") as caught:
            explain(source, strict=source is mixed)
        assert str(caught.value) == f"Saliency on small: {found.refused[0][1]}"


def test_what_gives_nothing_is_said() -> None:
    with pytest.raises(vizcnn.VizcnnError, match="no images were given"):
        explain(iter(()))


def test_an_error_of_the_iterator_itself_is_its_own() -> None:
    def fail() -> Iterator[Levels]:
        yield pictures()[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        explain(fail())
