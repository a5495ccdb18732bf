"""Saved results open again, equal to what was saved; what is no saved result is one clear error."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from support import ORIGIN, draw_folder, small_cnn

import vizcnn
from vizcnn.errors import ImageError, ParameterError, ResultError
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Mark, Panel, Record, Row, Scene, StoredPhoto
from vizcnn.testing import delicate_model

FILES = (".npz", ".safetensors")


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> Any:
    """As an image file of 8 bits holds them."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.float32) / np.float32(255)


def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, labels=list("abcde"), name="small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("pictures"))


def made(kind: str, folder: Path) -> vizcnn.Result:
    photos = [Photo(pixels(12, 20), "first $x$"), Photo(pixels(30, 18, 1, seed=1), "zwei ü")]
    calls: dict[str, Callable[[], vizcnn.Result]] = {
        "Heatmap": lambda: vizcnn.Occlusion(window=4, stride=4)(model(), photos, target=["b", "p(c)"], progress=False),
        "Heatmap of tensors": lambda: vizcnn.Saliency()(delicate_model(), model().grey().expand(2, 3, 16, 16) * 0.7),
        "ImageGrid": lambda: vizcnn.Filters()(vizcnn.load("simple")),
        "Film": lambda: vizcnn.Filters(compare="simple@initial")(vizcnn.load("simple")),
        "ImageGrid with photographs": lambda: vizcnn.FeatureMaps(channels=3)(model(), photos),
        "Table": lambda: vizcnn.Layers()(vizcnn.load("lecture"), progress=False),
        "Optimised": lambda: vizcnn.Maximize(steps=3, frames=2, preset="lecture")(model(), target="3:0-2"),
        "Optimised without frames": lambda: vizcnn.Maximize(steps=2, preset="lecture")(model(), target="3:0"),
        "Pictures": lambda: vizcnn.Dream(steps=2, frames=2)(model(), photos, "3:1", progress=False),
        "Scatter": lambda: vizcnn.Embed(features=True, neighbours=1)(model(), folder, progress=False),
        "Exemplars": lambda: vizcnn.TopImages(count=3, beside=("filter",))(model(), folder, "0:1-2", progress=False),
    }
    return calls[kind]()


KINDS = ["Heatmap", "Heatmap of tensors", "ImageGrid", "Film", "ImageGrid with photographs", "Table", "Optimised",
         "Optimised without frames", "Pictures", "Scatter", "Exemplars"]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def result(request: pytest.FixtureRequest, folder: Path) -> vizcnn.Result:
    return made(request.param, folder)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Same classes, same values, same types of numbers, all the way down."""
    if isinstance(a, str):  # torch's version is of a class of its own
        assert isinstance(b, str), where
        assert str(a) == str(b), where
        return
    assert type(a) is type(b), f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, where)
    elif is_dataclass(a):
        for field in fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            if field.name == "pixels" and not isinstance(a, Photo):  # cut from a photograph: a picture of it
                np.testing.assert_allclose(x, y, atol=0.501 / 255)
            else:
                assert_equal(x, y, f"{where}.{field.name}")
    elif isinstance(a, Mapping):
        assert list(a) == list(b), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, tuple | list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b or a != a, f"{where}: {a!r} and {b!r}"


def drawn(result: vizcnn.Result, folder: Path) -> Any:
    with Image.open(result.save(folder / "drawn.png")) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


# --- what opens is what was saved -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FILES)
def test_every_kind_of_result_opens_equal(result: vizcnn.Result, ending: str, tmp_path: Path) -> None:
    opened = vizcnn.load_result(result.save(tmp_path / f"a{ending}"))
    assert_equal(result, opened)
    assert opened.describe() == result.describe()
    assert opened.manifest() == result.manifest()
    assert_equal(result.arrays(), opened.arrays())


ODD_ARRAYS: dict[str, Any] = {
    "one number": np.array(2.5, np.float32),
    "a scalar of numpy": np.float64(3),
    "another order of bytes": np.arange(3, dtype=">i4"),
    "not in one piece": np.arange(12).reshape(3, 4)[:, ::2],
    "nothing": np.empty((0, 3)),
    "a list": [1, 2],
}


@pytest.mark.parametrize("ending", FILES)
def test_arrays_of_any_form_open_again(ending: str, tmp_path: Path) -> None:
    file = Odd(ORIGIN).save(tmp_path / f"a{ending}")
    numbers = vizcnn.load_result(file).arrays()
    assert numbers.keys() == ODD_ARRAYS.keys()
    for name, values in ODD_ARRAYS.items():
        np.testing.assert_array_equal(numbers[name], values, name, strict=name != "another order of bytes")


def test_times_are_numbers_of_an_npz(tmp_path: Path) -> None:
    times = np.array(["2026-01-02"], "datetime64[D]")
    with np.load(Odd(ORIGIN, {"times": times}).save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["times"], times)


class Odd(vizcnn.Result):
    """A result of a person's own class."""

    def __init__(self, origin: vizcnn.results.Provenance, numbers: Any = ODD_ARRAYS) -> None:
        object.__setattr__(self, "provenance", origin)
        object.__setattr__(self, "numbers", numbers)

    def arrays(self) -> dict[str, Any]:
        return {**self.numbers}  # type: ignore[attr-defined]

    def summary(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return "odd"

    def figure(self) -> Any:
        raise NotImplementedError


def test_every_kind_of_result_draws_as_it_did(result: vizcnn.Result, tmp_path: Path) -> None:
    opened = vizcnn.load_result(result.save(tmp_path / "a.npz"))
    before, after = drawn(result, tmp_path), drawn(opened, tmp_path)
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= 2


def test_saved_again_the_file_holds_the_same(result: vizcnn.Result, tmp_path: Path) -> None:
    first = vizcnn.load_result(result.save(tmp_path / "a.npz"))
    with np.load(tmp_path / "a.npz") as before, np.load(first.save(tmp_path / "b.npz")) as after:
        assert before.files == after.files
        for name in before.files:
            np.testing.assert_array_equal(before[name], after[name], name)


def test_the_arrays_of_a_result_are_not_kept_twice(folder: Path, tmp_path: Path) -> None:
    found = made("Optimised", folder)
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        assert set(saved.files) == {*found.arrays(), "manifest", "vizcnn"}


def test_large_photographs_come_back_as_thumbnails_and_say_so(tmp_path: Path) -> None:
    large = Photo(np.kron(pixels(20, 30), np.ones((20, 20, 1), np.float32)), "large")
    found = vizcnn.Occlusion(window=4, stride=4)(model(), [large, Photo(pixels(9, 7), "small")], "b", progress=False)
    opened = vizcnn.load_result(found.save(tmp_path / "a.npz"))
    assert isinstance(opened, vizcnn.Heatmap)
    first, second = opened.photos
    assert isinstance(first, StoredPhoto)
    assert first.stored == "thumbnail"
    assert first.size == large.size == (400, 600)
    assert first.original_sha256 == large.sha256() == found.provenance.images[0][1]
    assert first.thumbnail is not None
    assert first.thumbnail.shape == (171, 256, 3)
    assert np.abs(first.pixels - large.pixels).mean() < 0.1
    assert type(second) is Photo  # small enough to be whole
    np.testing.assert_array_equal(second.pixels, pixels(9, 7))
    assert_equal(replace(found, photos=()), replace(opened, photos=()))
    again = vizcnn.load_result(opened.save(tmp_path / "b.npz"))
    assert_equal(opened, again)
    with pytest.raises(ImageError, match="of large a saved result kept a thumbnail only. Open the image file itself"):
        vizcnn.Saliency()(model(), first)  # its answer would be about another image
    vizcnn.Saliency()(model(), second)
    before, after = drawn(found, tmp_path), drawn(opened, tmp_path)
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < 4


def test_a_photograph_that_is_not_bytes_comes_back_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((10, 10, 3), np.float32)
    opened = vizcnn.load_result(vizcnn.Occlusion(window=4)(model(), values, "b").save(tmp_path / "a.npz"))
    assert isinstance(opened, vizcnn.Heatmap)
    np.testing.assert_array_equal(opened.photos[0].pixels, values)


def test_of_an_enormous_photograph_the_digest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizcnn.results.storing.LARGEST", 300 * 300)
    photo = Photo(pixels(300, 301, 1), "enormous")
    values = np.ones((1, 2, 2), np.float32)
    panel = Panel("tiles", "t", values, (0,), ("0",), ((0.0, 1.0),), "weight")
    scene = Scene(photo, Box(0, 0, 300, 301), (Mark(Box(1, 2, 30, 40), "unit"),))
    opened = vizcnn.load_result(vizcnn.ImageGrid(ORIGIN, (Row((panel,), scene),), ()).save(tmp_path / "a.safetensors"))
    assert isinstance(opened, vizcnn.ImageGrid)
    assert opened.rows[0].scene is not None
    known = opened.rows[0].scene.photo
    assert isinstance(known, StoredPhoto)
    assert known.stored == "digest"
    assert known.size == (300, 301)
    assert known.original_sha256 == photo.sha256()
    assert opened.save(tmp_path / "a.png").stat().st_size > 1000


def test_values_that_json_lacks_come_back(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    origin = replace(ORIGIN, details={"size": (3, 4), "kept": [1, (2, nan)], "rate": -inf}, options={"most": {1: "a"}})
    table = vizcnn.Table(origin, ("name", "x"), (("a\ud800\n", nan), ("b", inf), ("", (1, 2.5)), ("d", None)), ("ü",))
    for ending in (*FILES, ".json"):
        assert_equal(table, vizcnn.load_result(table.save(tmp_path / f"a{ending}")))


def test_a_partial_result_stays_partial(folder: Path, tmp_path: Path) -> None:
    found = made("Heatmap", folder)
    assert isinstance(found, vizcnn.Heatmap)
    values = found.values.copy()
    values[:, :, 5:] = np.nan
    partial = replace(found, values=values, partial=True)
    assert_equal(partial, vizcnn.load_result(partial.save(tmp_path / "a.npz")))


# --- .json, and kinds that are not known ------------------------------------------------------------------------------


def test_json_holds_a_table_whole(folder: Path, tmp_path: Path) -> None:
    table = made("Table", folder)
    assert_equal(table, vizcnn.load_result(table.save(tmp_path / "a.json")))


@pytest.mark.parametrize("kind", ["Heatmap", "ImageGrid", "Film", "Optimised", "Pictures", "Scatter", "Exemplars"])
def test_json_of_other_kinds_is_a_record_of_them(kind: str, folder: Path, tmp_path: Path) -> None:
    found = made(kind, folder)
    opened = vizcnn.load_result(found.save(tmp_path / "a.json"))
    assert isinstance(opened, Record)
    assert opened.kind == kind
    assert_equal(found.provenance, opened.provenance)
    assert opened.manifest() == found.manifest()
    assert opened.describe() == found.describe()
    assert opened.arrays() == {}
    with pytest.raises(ParameterError, match=f"of this {kind} the file held the record alone.* Open the .npz"):
        opened.save(tmp_path / "a.png")
    assert_equal(opened, vizcnn.load_result(opened.save(tmp_path / "b.json")))


def test_a_third_partys_result_opens_while_its_class_is_known(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Norms(vizcnn.Result):
        names: list[str]
        values: Any

        def arrays(self) -> dict[str, Any]:
            return {"values": self.values}

        def summary(self) -> dict[str, Any]:
            return {"names": self.names}

        def describe(self) -> str:
            return "norms"

    found = Norms(ORIGIN, ["a", "b"], np.arange(2.0))
    assert_equal(found, vizcnn.load_result(found.save(tmp_path / "a.npz")))
    Norms.__name__ = "Other"  # now nothing of the old name is known
    opened = vizcnn.load_result(tmp_path / "a.npz")
    assert isinstance(opened, Record)
    assert opened.kind == "Norms"
    assert opened.summary() == {"names": ["a", "b"]}
    np.testing.assert_array_equal(opened.arrays()["values"], [0, 1])


def test_what_cannot_be_kept_does_not_stop_a_result_from_being_saved(tmp_path: Path) -> None:
    class Plain(vizcnn.Result):  # no dataclass
        def arrays(self) -> dict[str, Any]:
            return {"values": np.ones(3)}

        def summary(self) -> dict[str, Any]:
            return {}

        def describe(self) -> str:
            return "ones"

    @dataclass(frozen=True)
    class Odd(Plain):
        thing: object = None

    for found in (Plain(ORIGIN), Odd(ORIGIN, object())):
        for ending in (*FILES, ".json"):
            opened = vizcnn.load_result(found.save(tmp_path / f"a{ending}"))
            assert isinstance(opened, Record)
            assert opened.describe() == "ones"
            assert len(opened.arrays()) == (ending != ".json")


# --- what is no saved result ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small result in every format."""
    place = tmp_path_factory.mktemp("saved")
    table = vizcnn.Table(ORIGIN, ("name", "x"), (("a", 1.5), ("b", 2.5)), ("something",))
    panel = Panel("tiles", "t", pixels(2, 3, 2, 1), (0, 1), ("0", "1"), ((0.0, 1.0),) * 2, "weight")
    grid = vizcnn.ImageGrid(ORIGIN, (Row((panel,)),), ("found",))
    table.save(place / "a.json")
    for ending in FILES:
        grid.save(place / f"a{ending}")
    return place


def error_of(file: Path, sound: vizcnn.Result) -> str:
    """What opening a file raises; nothing where it holds the same as a sound one."""
    try:
        opened = vizcnn.load_result(file)
    except ResultError as error:
        return str(error)
    assert_equal(sound, opened)
    return ""


@pytest.mark.parametrize("ending", [*FILES, ".json"])
def test_damaged_files_are_one_clear_error_or_hold_the_same(ending: str, saved: Path, tmp_path: Path) -> None:
    """A byte of a file that no reader looks at may change; nothing that is read may."""
    file, whole = tmp_path / f"a{ending}", (saved / f"a{ending}").read_bytes()
    sound = vizcnn.load_result(saved / f"a{ending}")
    random = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] ^= int(random.integers(1, 256))
        file.write_bytes(damaged)
        if said := error_of(file, sound):
            found += 1
            assert str(file) in said
            assert "\n" not in said
    assert found > 200
    for length in (0, 1, 7, 60, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        if ending != ".json" or length != len(whole) - 1:  # there the last byte is the end of a line
            with pytest.raises(ResultError, match="damaged|no result that vizcnn has saved"):
                vizcnn.load_result(file)


@pytest.mark.parametrize("edit", ["provenance", "record", "array"])
def test_what_was_changed_by_hand_is_not_believed(edit: str, saved: Path, tmp_path: Path) -> None:
    with safe_open(saved / "a.safetensors", "np") as file:
        texts, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if edit == "array":
        arrays["tiles"] = arrays["tiles"] + np.float32(1)
    else:
        key, old, new = {"provenance": ("manifest", "net", "other"), "record": ("vizcnn", "found", "fount")}[edit]
        assert old in texts[key]
        texts[key] = texts[key].replace(old, new)
    save_file(arrays, tmp_path / "a.safetensors", texts)
    with pytest.raises(ResultError, match="a.safetensors is damaged, or was changed after it was saved"):
        vizcnn.load_result(tmp_path / "a.safetensors")


def test_a_newer_format_is_named(saved: Path, tmp_path: Path) -> None:
    whole = json.loads((saved / "a.json").read_text())
    whole["vizcnn"]["format"] = 2
    whole["provenance"]["version"] = "9.1"
    (tmp_path / "a.json").write_text(json.dumps(whole))
    with pytest.raises(ResultError, match="was saved by vizcnn 9.1 in format 2, and this one reads up to 1. Update"):
        vizcnn.load_result(tmp_path / "a.json")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", values=np.ones(3))
    save_file({"values": np.ones(3)}, tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text('{"provenance": {}}')
    (tmp_path / "b.json").write_text("[1, 2]")
    for name in ("a.npz", "a.safetensors", "a.json", "b.json"):
        with pytest.raises(ResultError, match=f"{name} is no result that vizcnn has saved"):
            vizcnn.load_result(tmp_path / name)
    for name in ("c.npz", "c.safetensors", "c.json"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
        with pytest.raises(ResultError, match=f"{name} is damaged, or no {name[1:]} file"):
            vizcnn.load_result(tmp_path / name)


def test_what_is_no_file_of_results_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.json").mkdir()
    for name, message in {
        "a.png": "results open from .npz, .safetensors, .json, got a.png",
        "gone.npz": "gone.npz does not exist",
        "gone.safetensors": "gone.safetensors does not exist",
        "gone.json": "gone.json does not exist",
        "pipe.npz": "pipe.npz is no regular file",
        "folder.json": "folder.json is no regular file",
    }.items():
        with pytest.raises(ResultError, match=message):
            vizcnn.load_result(tmp_path / name)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", vizcnn=np.array([Bomb()], object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ResultError, match=f"{name} is damaged, or no .npz file"):
            vizcnn.load_result(name)
    assert not Path("exploded").exists()


def test_classes_that_a_result_is_not_made_of_are_never_made(saved: Path, tmp_path: Path) -> None:
    """Also not where the digest has been made to fit."""
    from vizcnn.results.storing import digest_of

    whole = json.loads((saved / "a.json").read_text())
    record = whole.pop("vizcnn")
    record["fields"]["columns"] = {"Provenance": record["provenance"]}
    record["sha256"] = digest_of(whole, record, {})
    (tmp_path / "a.json").write_text(json.dumps(whole | {"vizcnn": record}))
    with pytest.raises(ResultError, match="a.json is damaged"):
        vizcnn.load_result(tmp_path / "a.json")


def test_a_result_opens_that_was_saved_before_provenance_said_so_much(saved: Path, tmp_path: Path) -> None:
    from vizcnn.results.storing import digest_of

    whole = json.loads((saved / "a.json").read_text())
    record = whole.pop("vizcnn")
    for name in ("network_sha256", "files", "plugin"):
        del record["provenance"][name]
    record["sha256"] = digest_of(whole, record, {})
    (tmp_path / "a.json").write_text(json.dumps(whole | {"vizcnn": record}))
    provenance = vizcnn.load_result(tmp_path / "a.json").provenance
    assert (provenance.network_sha256, provenance.files, provenance.plugin) == ("", (), "")


@pytest.mark.parametrize(("shape", "size"), [("(1000000000000,)", None), ("(3,)", 10**12)])
def test_a_file_cannot_ask_for_more_memory_than_it_can_hold(shape: str, size: int | None, tmp_path: Path) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(24)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("vizcnn.npy", content)
    if size:  # in the directory at the end
        raw = bytearray((tmp_path / "a.npz").read_bytes())
        entry = raw.index(b"PK\x01\x02")
        raw[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
        (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(ResultError, match="is not the array that it says|cannot be as large as it says"):
        vizcnn.load_result(tmp_path / "a.npz")


def test_opening_and_drawing_need_no_torch(tmp_path: Path, folder: Path) -> None:
    file = made("Heatmap", folder).save(tmp_path / "a.npz")
    code = (
        "import sys, vizcnn\n"
        f"vizcnn.load_result({str(file)!r}).save({str(tmp_path / 'a.png')!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.png").exists()
