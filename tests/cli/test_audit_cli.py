"""`vizcnn audit`: a folder of files, an exit status for pipelines, and nothing of other people's overwritten."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support_audit import draw_images, plant_tags

import vizcnn
from vizcnn.auditing.proving import prove
from vizcnn.cli.auditing import check_folder
from vizcnn.cli.main import main
from vizcnn.errors import ParameterError
from vizcnn.results.audit_words import describe_finding, tell_finding

HOSTILE = "<img src=x onerror=alert(1)>"
_FACTORY = """
from support_audit import make_model

def used():
    return make_model(use=4, labels={labels!r})

def ignored():
    return make_model(use=0, labels={labels!r})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with a tag in half of one class, whose names are markup, and the networks `used` and `ignored`."""
    names = ["<b>red", "green", "blue"]
    images, labels = draw_images()
    for i, (image, label) in enumerate(zip(plant_tags(images, range(12)), labels, strict=True)):
        place = tmp_path / "photos" / names[label]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{HOSTILE.replace('/', '')}{i}.png")
    (tmp_path / "networks.py").write_text(_FACTORY.format(labels=tuple(names)))
    return tmp_path


def run(folder: Path, network: str, *options: str) -> tuple[int, str]:
    """The exit status, and what was printed on stdout, or on stderr where that is all."""
    command = ["audit", str(folder / "photos"), "-m", f"{folder / 'networks.py'}:{network}", "-o", str(folder / "out")]
    found = CliRunner().invoke(main, [*command, *options])
    return found.exit_code, found.stdout or found.stderr


def test_an_audit_writes_a_folder_and_fails_only_if_asked(folder: Path) -> None:
    code, said = run(folder, "used", "--fail")
    assert code == 4
    assert "SHORTCUT <b>red: a copied patch of 6 x 6 px at x 24, y 2" in said
    out = folder / "out"
    sheet = out / "sheet-1-shortcut-b-red.png"
    assert str(sheet) in said
    with Image.open(sheet) as picture:
        assert picture.size[0] > 1000
    assert json.loads((out / "findings.json").read_text())["findings"][0]["class"] == "<b>red"
    found = vizcnn.load_result(out / "audit.npz")
    assert isinstance(found, vizcnn.Audit)
    assert found.findings[0].removed is not None
    assert found.findings[0].removed.rate == 0, "the images are of the class without the tag, too"
    changed = replace(found.findings[0], copies="alike")
    assert "copied and changed patch" in tell_finding(changed)
    assert "not the same px" in " ".join(describe_finding(changed))
    suspicion = describe_finding(replace(found.findings[0], kind="suspicion"))[0]
    assert "Found a patch of" in suspicion, "what is not proven may be copied or not"
    assert "Removed from 5 images in three ways each" in describe_finding(found.findings[0])[2]
    page = (out / "report.html").read_text()
    body = re.sub(r'src="data:image/png;base64,[^"]*"', "", page)
    assert "&lt;b&gt;red" in page
    assert "without them it is lost" not in page, "0% are lost here: the margin falls"
    assert "<b>" not in body
    assert "<img src" not in body
    assert not re.search(r"https?://", body)
    assert page.count("<img ") == len(json.loads((out / "findings.json").read_text())["findings"])

    (out / "sheet-9-shortcut-mine.png").write_bytes(b"not ours")
    code, said = run(folder, "ignored", "--json")
    assert code == 0
    (record,) = json.loads(said)["results"]
    assert all(finding["kind"] != "shortcut" for finding in record["findings"])
    assert not sheet.exists(), "the sheet of the audit before"
    assert (out / "sheet-9-shortcut-mine.png").exists()


def test_a_folder_of_other_people_is_left_alone(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("mine")
    code, said = run(folder, "used")
    assert code == 1
    assert "holds files that are not of an audit, and was left alone" in said
    assert [file.name for file in (folder / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("out", ["photos/audit", "photos"])
def test_a_folder_in_the_data_set_is_refused(folder: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second audit would read it as a class."""
    monkeypatch.chdir(folder)
    found = CliRunner().invoke(main, ["audit", "./photos", "-m", "networks.py:used", "-o", out])
    assert found.exit_code == 1
    assert "would lie in the data set ./photos" in found.stderr
    assert len([*(folder / "photos").iterdir()]) == 3


def test_a_refused_audit_leaves_no_folder(folder: Path) -> None:
    assert run(folder, "nonesuch")[0] == 1
    assert not (folder / "out").exists()
    (folder / "file").write_text("mine")
    code, said = run(folder, "used", "-o", str(folder / "file" / "out"))
    assert code == 1
    assert f"cannot make the folder {folder / 'file' / 'out'}" in said


def test_a_stopped_audit_writes_what_is_proven_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "photos" / "green" / "broken.png").write_bytes(b"no picture")
    calls = 0

    def stop(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return prove(*given)

    monkeypatch.setattr("vizcnn.auditing.tasks.prove", stop)
    code, said = run(folder, "used")
    assert code == 130, "also where an image could not be read"
    assert "Stopped early" in said
    assert "The same command goes on from here" in said
    out = folder / "out"
    assert json.loads((out / "findings.json").read_text())["partial"]
    assert len([*(out / "unfinished").iterdir()]) == 5, "the identity, three classes and a test"
    code, said = run(folder, "used", "--seed", "1")
    assert code == 1
    assert "what another audit did until it was stopped (seed: 0 there, 1 here)" in said
    calls = 2
    assert run(folder, "used")[0] == 3
    assert not (out / "unfinished").exists()
    assert not json.loads((out / "findings.json").read_text())["partial"]


@pytest.mark.parametrize("record", ['{"provenance": "mine"}', '{"provenance": null}', "[1]", "no JSON"])
def test_findings_of_another_program_are_left_alone(tmp_path: Path, record: str) -> None:
    (tmp_path / "findings.json").write_text(record)
    with pytest.raises(ParameterError, match="was left alone"):
        check_folder(tmp_path, [])
    assert (tmp_path / "findings.json").read_text() == record


def test_an_image_that_cannot_be_read_is_left_out_and_named(folder: Path) -> None:
    broken = folder / "photos" / "green" / "broken.png"
    broken.write_bytes(b"no picture")
    code, said = run(folder, "ignored", "-q")
    assert code == 3
    assert "green/broken.png was skipped" in said
    record = json.loads((folder / "out" / "findings.json").read_text())
    assert record["images"] == 72
    assert np.array(record["provenance"]["refused"]).shape == (1, 2)


def test_what_was_found_counts_more_than_an_image_that_cannot_be_read(folder: Path) -> None:
    (folder / "photos" / "green" / "broken.png").write_bytes(b"no picture")
    code, said = run(folder, "used", "-q", "--fail")
    assert code == 4
    assert "green/broken.png was skipped" in said


def test_an_audit_that_could_not_be_written_is_not_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(vizcnn.Audit, "save_sheet", stop)
        assert run(folder, "used")[0] == 130
    monkeypatch.setattr("vizcnn.auditing.tasks.prove", stop)  # nothing is tested again
    code, said = run(folder, "used", "--fail")
    assert code == 4
    assert "SHORTCUT <b>red" in said
    assert (folder / "out" / "report.html").exists()
    assert not (folder / "out" / "unfinished").exists()
