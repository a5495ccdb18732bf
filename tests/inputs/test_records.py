"""Pictures that vizcnn saves say where they come from, and are left out when a folder is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support import ORIGIN

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import ImageError, VizcnnWarning
from vizcnn.inputs import dataset, image_files, provenance_in
from vizcnn.inputs.records import save_options
from vizcnn.results import Heatmap, Pictures, Scenery, Table

ODD = "ümlaut “quoted” <tag> & 猫"
KEPT = replace(ORIGIN, options={"like": ODD}, images=(("photo.png", "0" * 64),))


def table(origin: Any = KEPT) -> Table:
    return Table(origin, ("layer",), (("conv",),), ("one layer",))


def expected(origin: Any = KEPT) -> Any:
    return json.loads(json.dumps(asdict(origin)))


@pytest.mark.parametrize("kind", ["png", "jpg", "jpeg", "pdf"])
def test_a_figure_says_where_it_comes_from(kind: str, tmp_path: Path) -> None:
    assert provenance_in(table().save(tmp_path / f"a.{kind}")) == expected()


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
def test_a_picture_and_an_animation_say_where_they_come_from(kind: str, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    scene = Scenery(np.zeros((16, 16, 3), np.float32), (), {}, frames)
    assert provenance_in(Pictures(KEPT, (scene,)).save(tmp_path / f"a.{kind}")) == expected()


def test_pages_and_drawings_hold_the_record_as_text(tmp_path: Path) -> None:
    import html

    drawing = html.unescape(table().save(tmp_path / "a.svg").read_text())
    found = re.search(r"<dc:description>vizcnn (.*?)</dc:description>", drawing, re.S)
    assert found
    assert json.loads(found[1]) == expected()


def test_a_pdf_gives_back_whatever_its_record_holds(tmp_path: Path) -> None:
    odd = replace(KEPT, model=r"a (b) \( c\) /Subject (vizcnn {}) " + "\n\r\x00")
    assert provenance_in(table(odd).save(tmp_path / "a.pdf")) == expected(odd)
    (tmp_path / "other.pdf").write_bytes(b"%PDF-1.4\n<< /Subject (a letter) >>\n%%EOF\n")
    (tmp_path / "short.pdf").write_bytes(b"%PDF-1.4\n<< /Subject (vizcnn {")
    for name in ("other.pdf", "short.pdf"):
        assert provenance_in(tmp_path / name) is None


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
def test_a_record_with_what_json_does_not_know_is_kept_as_text(kind: str, tmp_path: Path) -> None:
    odd = {"layer": np.int64(3), "file": Path("a") / "b"}
    Image.new("RGB", (4, 4)).save(tmp_path / f"a.{kind}", **save_options(kind, odd))
    assert provenance_in(tmp_path / f"a.{kind}") == {"layer": "3", "file": str(Path("a") / "b")}


@pytest.mark.parametrize("long", ["options", "details", "targets"])
def test_a_record_that_jpeg_has_no_room_for_loses_its_longest_entries(long: str, tmp_path: Path) -> None:
    record = {**expected(), long: {"names": ["a" * 100] * 700}}
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", **save_options("jpg", record))
    assert provenance_in(tmp_path / "a.jpg") == {key: value for key, value in record.items() if key != long}


def test_a_record_that_jpeg_has_no_room_for_loses_its_lists_and_nothing_else(tmp_path: Path) -> None:
    many = replace(ORIGIN, images=tuple((f"photo-{i}.png", f"{i:064x}") for i in range(2000)))
    whole = expected(many)
    assert provenance_in(table(many).save(tmp_path / "a.png")) == whole
    short = provenance_in(table(many).save(tmp_path / "a.jpg"))
    assert short == {key: value for key, value in whole.items() if key != "images"}


def test_what_others_have_made_has_no_record_of_ours(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    for kind, options in (("png", {}), ("jpg", {"comment": "vizcnn is fine"}), ("gif", {"comment": b'{"probe": 1}'})):
        picture.save(tmp_path / f"a.{kind}", **options)
        assert provenance_in(tmp_path / f"a.{kind}") is None
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"ASCII\0\0\0vizcnn no JSON"}
    picture.save(tmp_path / "b.jpg", exif=exif)
    (tmp_path / "c.png").write_bytes(b"\x89PNG, but not really")
    os.mkfifo(tmp_path / "d.png")
    for name in ("b.jpg", "c.png", "d.png", "no such file.png"):
        assert provenance_in(tmp_path / name) is None


def test_only_our_own_pictures_of_a_folder_are_skipped_and_counted(photo_file: Path) -> None:
    folder = photo_file.parent
    Image.open(photo_file).save(folder / "partial-occlusion.jpg")
    kept = [str(folder / "partial-occlusion.jpg"), str(photo_file)]
    assert image_files(folder) == kept
    table().save(folder / "photo-table.png")
    table().save(folder / "sheet.jpg")
    with pytest.warns(VizcnnWarning, match=r"2 pictures that vizcnn has made in .* skipped. To look at one"):
        assert image_files(folder) == kept
    assert image_files(folder / "sheet.jpg") == [str(folder / "sheet.jpg")]


def test_a_folder_of_nothing_but_our_pictures_says_so(tmp_path: Path) -> None:
    table().save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="holds no images but 1 picture that vizcnn has made. Name a file"):
        image_files(tmp_path)


def test_the_command_line_and_python_see_the_same_files(
    photo_file: Path, brightness: vizcnn.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo_file.parent)
    Image.open(photo_file).save("partial-occlusion.jpg")
    table().save("photo-cam.png")
    with pytest.warns(VizcnnWarning, match="1 picture that vizcnn has made in . skipped"):
        seen = vizcnn.Occlusion(window=4)(brightness, ".", progress=False)
    assert isinstance(seen, Heatmap)
    answer = CliRunner().invoke(main, ["occlusion", ".", "--window", "32", "--stride", "32", "--json"])
    assert answer.exit_code == 0
    assert "vizcnn: warning: 1 picture that vizcnn has made in . skipped." in answer.stderr
    printed = [each["images"][0]["name"] for each in json.loads(answer.stdout)["results"]]
    assert printed == [photo.name for photo in seen.photos] == ["partial-occlusion.jpg", "photo.png"]


def test_a_data_set_is_without_our_pictures_too(photo_file: Path) -> None:
    folder = photo_file.parent
    (folder / "cat").mkdir()
    Image.open(photo_file).save(folder / "cat" / "1-occlusion.png")
    table().save(folder / "sheet.png")
    with pytest.warns(VizcnnWarning, match="1 picture that vizcnn has made in .* skipped"):
        found = dataset(folder)
    assert found.names == ["cat/1-occlusion.png", "photo.png"]
    (folder / "photo.png").unlink()
    with pytest.warns(VizcnnWarning, match="skipped"):  # our picture does not make `cat` a class
        assert dataset(folder).read(0)[1] is None


def test_photographs_are_opened_without_torch() -> None:
    code = (
        "import sys, vizcnn.inputs as inputs; inputs.open_photo, inputs.image_files; assert 'torch' not in sys.modules;"
        "import vizcnn.inputs.datasets; assert inputs.dataset is inputs.datasets.dataset"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
