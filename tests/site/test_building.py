"""atlas(): one call writes a site, leaves the network as it was, goes on after a stop, and hides what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support_site import write_noise

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import LayerNotFound, ParameterError, UnsuitableNetwork
from vizcnn.site.building import Atlas
from vizcnn.testing import state_of

QUICK: dict[str, Any] = {"pictures": "none", "effects": 0.0, "pages": 4, "progress": False}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "digits", 12)


@pytest.fixture(scope="module")
def made(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    model = vizcnn.load("lecture")
    before = model.weights_sha256()
    found = vizcnn.atlas(model, digits, tmp_path_factory.mktemp("out") / "site", **QUICK)
    assert model.weights_sha256() == before
    assert not model.network.training
    return found


def read(made: Atlas, name: str) -> str:
    return (made.folder / "data" / f"{name}.js").read_text()


def test_a_folder_becomes_a_site(made: Atlas) -> None:
    assert made.page.is_file()
    assert (made.units, made.images) == (25 + 50 + 100 + 10, 12)
    files = [file for file in made.folder.rglob("*") if file.is_file() and file.name != "atlas.json"]
    assert made.size == sum(file.stat().st_size for file in files)
    about = json.loads((made.folder / "atlas.json").read_text())
    assert about["finished"]
    assert about["origin"]["weights"] == vizcnn.load("lecture").weights_sha256()
    assert "secretname" in read(made, "N0")
    assert str(made.page) in str(made)


def test_without_images_of_the_data_set_nothing_of_them_is_left(made: Atlas, tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    found = vizcnn.atlas(model, folder=tmp_path / "site", index=made.work / "index", dataset_images=False, **QUICK)
    files = [file for file in found.folder.rglob("*") if file.is_file()]
    assert json.loads((found.folder / "atlas.json").read_text())["origin"]["data"] == "a data set"
    assert not any(b"secretname" in file.read_bytes() for file in files)
    assert not [file for file in files if file.parent.name == "photo"]
    assert not [file for file in files if file.name[0] in "AINPW" and file.parent.name == "data"]


def test_layers_that_are_left_out_are_no_sources(made: Atlas, tmp_path: Path) -> None:
    found = vizcnn.atlas(
        vizcnn.load("lecture"), folder=tmp_path / "site", index=made.work / "index", layers=["conv?"], **QUICK
    )
    assert found.units == 75 + 10  # the output is always there
    pages = [file for file in (found.folder / "data").iterdir() if file.name.startswith("I")]
    assert pages
    assert not any('"answers":[]' in page.read_text() for page in pages)
    found = vizcnn.atlas(
        vizcnn.load("lecture"), folder=tmp_path / "site", index=made.work / "index", layers=["conv2"], **QUICK
    )
    assert "it reads a layer that is left out" in read(found, "U0-0")


def test_what_was_kept_is_not_measured_again(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = vizcnn.load("lecture"), tmp_path / "site"
    wanted: dict[str, Any] = {"pictures": ["fc2"], "recipe": "quick", "effects": 0.0, "pages": 2, "progress": False}
    first = vizcnn.atlas(model, digits, folder, **wanted)
    pictures = sorted(file.name for file in (folder / "unit").iterdir())
    assert len(pictures) == 10
    about = json.loads((folder / "atlas.json").read_text())["origin"]
    assert ["recipe", "quick, 60 steps, seed 0"] in about["options"]
    from vizcnn.anatomy import pictures as making
    from vizcnn.site.study import maps

    monkeypatch.setattr(making, "optimize", None)  # not called
    monkeypatch.setattr(maps, "Occlusion", lambda **_options: lambda *_given, **_more: pytest.fail("made again"))
    again = vizcnn.atlas(model, digits, folder, **wanted)
    assert again.size == first.size
    assert sorted(file.name for file in (folder / "unit").iterdir()) == pictures
    page = next((folder / "data").glob("I*.js")).read_text()
    assert '"method":"Occlusion"' in page
    assert '"verdict":' in page


def test_a_class_that_nothing_speaks_for_takes_no_map_from_the_other(made: Atlas) -> None:
    pages = [
        json.loads(file.read_text().removeprefix("ATLAS.put(...").removesuffix(");\n"))[1]
        for file in (made.folder / "data").glob("I*.js")
    ]
    without = [page for page in pages if any("zero everywhere" in why for why in page["unmade"])]
    assert without  # noise, of which Grad-CAM often finds nothing that speaks for the right digit
    for page in without:
        of_grad_cam = [one["target"] for one in page["maps"] if one["method"] == "Grad-CAM"]
        assert len(of_grad_cam) + len(page["unmade"]) == sum(one["method"] == "Occlusion" for one in page["maps"])
        assert of_grad_cam


def test_what_was_kept_of_other_layers_is_not_shown(made: Atlas, tmp_path: Path) -> None:
    model, index = vizcnn.load("lecture"), made.work / "index"
    wanted: dict[str, Any] = {**QUICK, "index": index, "effects": 1e-9}
    vizcnn.atlas(model, folder=tmp_path / "used", **wanted)
    again = vizcnn.atlas(model, folder=tmp_path / "used", layers=["fc1", "fc2"], **wanted)
    fresh = vizcnn.atlas(model, folder=tmp_path / "fresh", layers=["fc1", "fc2"], **wanted)
    assert '"flips"' in read(fresh, "U0-0")
    assert read(again, "U0-0") == read(fresh, "U0-0")
    assert read(again, "L0") == read(fresh, "L0")


def test_a_foreign_folder_is_left_alone(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ParameterError, match="holds files that are not of an atlas"):
        vizcnn.atlas(vizcnn.load("lecture"), digits, tmp_path, **QUICK)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_site_in_the_data_set_is_refused(digits: Path) -> None:
    with pytest.raises(ParameterError, match="would lie in the data set"):
        vizcnn.atlas(vizcnn.load("lecture"), digits, digits / "site", **QUICK)
    assert not (digits / "site").exists()


def test_the_folder_where_one_is_has_its_work_beside_it(
    made: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = vizcnn.atlas(vizcnn.load("lecture"), folder=".", index=made.work / "index", layers=["conv1"], **QUICK)
    assert found.work == tmp_path / "here.work"
    assert (tmp_path / "here" / "index.html").is_file()
    (tmp_path / "here" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "here" / "sub")
    found = vizcnn.atlas(vizcnn.load("lecture"), folder="..", index=made.work / "index", layers=["conv1"], **QUICK)
    assert found.work == tmp_path / "here.work"


def test_what_cannot_be_made_is_said_first(digits: Path, tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    with pytest.raises(LayerNotFound, match="no layer of the atlas is named 'conv9'. Did you mean 'conv2'?"):
        vizcnn.atlas(model, digits, tmp_path / "site", layers=["conv9"], **QUICK)
    with pytest.raises(ParameterError, match="at least 1, got 0"):
        vizcnn.atlas(model, digits, tmp_path / "site", **{**QUICK, "pages": 0})
    with pytest.raises(ParameterError, match="give one of them"):
        vizcnn.atlas(model, folder=tmp_path / "site", **QUICK)
    with pytest.raises(UnsuitableNetwork):
        vizcnn.atlas(vizcnn.Model(lambda x: x.mean((2, 3)), size=28, channels=1), digits, tmp_path / "site", **QUICK)
    assert not any(tmp_path.iterdir())


def test_the_command(digits: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    given = ["atlas", str(digits), "-m", "lecture", "-o", str(site), "--pictures", "none", "--effects", "0", "-q"]
    answer = CliRunner().invoke(main, [*given, "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)["results"][0]
    assert Path(said["page"]).is_file()
    assert said["units"] == 185


@pytest.mark.parametrize(
    "place", ["anatomy.pictures.optimize", "site.study.numbers.measure_effects", "site.study.maps.choose_occlusion"]
)
def test_a_stopped_atlas_leaves_no_trace_and_no_page_and_goes_on(
    place: str, made: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_given: Any, **_more: Any) -> None:
        raise KeyboardInterrupt

    model = vizcnn.load("lecture")
    before = state_of(model)
    wanted: dict[str, Any] = {"index": made.work / "index", "pictures": ["conv1"], "effects": 0.1, "pages": 2}
    with monkeypatch.context() as patched:
        patched.setattr(f"vizcnn.{place}", stop)
        with pytest.raises(KeyboardInterrupt):
            vizcnn.atlas(model, folder=tmp_path / "site", progress=False, **wanted)
        given = ["--index", str(made.work / "index"), "--pictures", "conv1", "--effects", "0.1", "--pages", "2"]
        answer = CliRunner().invoke(main, ["atlas", *given, "-m", "lecture", "-o", str(tmp_path / "site")])
        assert answer.exit_code == 130
        assert answer.stderr.endswith("vizcnn: stopped; the same command goes on from here\n")
    assert state_of(model) == before
    assert not (tmp_path / "site" / "index.html").exists()
    assert vizcnn.atlas(model, folder=tmp_path / "site", progress=False, **wanted).page.is_file()
