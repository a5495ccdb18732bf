"""Two networks in one atlas: what changed is known by construction, and what cannot be compared says so."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from support_site import write_noise
from torch import nn

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import ParameterError, UnsuitableNetwork
from vizcnn.graph.sites import find_sites
from vizcnn.site import building
from vizcnn.site.building import Atlas, estimate
from vizcnn.site.study.pairing import pair_sites

QUICK: dict[str, Any] = {"pictures": "none", "effects": 0.0, "pages": 2, "progress": False}
CONV2, FC1 = 1, 2
SWAPPED = 9, 11  # units that respond to the pictures below


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "digits", 18)


def change(name: str, weights: str) -> vizcnn.Model:
    """The network `lecture` with a unit of conv2 replaced, or two in each other's place."""
    model = vizcnn.load("lecture")
    model.name = name
    found = dict(model.network.named_parameters())
    with torch.no_grad():
        if weights == "one unit replaced":
            random = torch.Generator().manual_seed(0)
            found["conv2.weight"][7] = torch.randn(found["conv2.weight"][7].shape, generator=random) * 0.1
        if weights == "two units in each other's place":
            order = torch.arange(50)
            order[[*SWAPPED]] = order[[*reversed(SWAPPED)]]
            found["conv2.weight"].copy_(found["conv2.weight"][order])
            found["conv2.bias"].copy_(found["conv2.bias"][order])
            reads = found["fc1.weight"].view(100, 50, -1)
            reads.copy_(reads[:, order].clone())
    return model


def read(made: Atlas | Path, name: str) -> Any:
    folder = made if isinstance(made, Path) else made.folder
    text = (folder / "data" / f"{name}.js").read_text()
    found = re.fullmatch(r"ATLAS\.put\(\.\.\.(.*)\);\n", text, re.DOTALL)
    assert found
    return json.loads(found[1])[1]


def read_changes(made: Atlas, layer: int) -> dict[str, np.ndarray[Any, Any]]:
    (found,) = (found for i, found, _ in read(made, "changes")["layers"] if i == layer)
    kinds = {"change": "<f4", "nearest": "<i4", "like": "<f4"}
    return {name: np.frombuffer(base64.b64decode(found[name]), kind) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def made(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The atlas of a network beside that with one unit replaced, with pictures of a layer and effects."""
    model, other = vizcnn.load("lecture"), change("before", "one unit replaced")
    before = model.weights_sha256(), other.weights_sha256()
    wanted: dict[str, Any] = {**QUICK, "effects": 5.0}
    found = vizcnn.atlas(model, digits, tmp_path_factory.mktemp("out") / "site", compare=other, **wanted)
    assert (model.weights_sha256(), other.weights_sha256()) == before
    assert not model.network.training
    assert not other.network.training
    return found


# ------------------------------------------------------------------------------------------------- what changed


def test_the_unit_that_was_replaced_has_changed_most_and_its_neighbours_not_at_all(made: Atlas) -> None:
    found = read_changes(made, CONV2)
    assert found["change"].argmax() == 7
    assert found["change"][7] > 0.1
    assert (np.delete(found["change"], 7) == 0).all()
    assert (read_changes(made, 0)["change"] == 0).all()  # what lies before it
    assert (read_changes(made, FC1)["change"] > 0).any()  # what lies behind it
    assert "compared with before: 185 units in 4 layers" in str(made)


def test_what_the_other_network_gives_is_what_hooks_say(made: Atlas, digits: Path) -> None:
    other = change("before", "one unit replaced")
    files = sorted(digits.rglob("*.png"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])[:, None] / 255
    seen: dict[str, torch.Tensor] = {}
    handle = other.layer("relu2").register_forward_hook(lambda _m, _i, out: seen.update(out=out.clone()))
    with torch.no_grad():
        output = other(pixels)
    handle.remove()
    for k, unit in enumerate(read(made, "B1-0")):
        values = seen["out"][:, k]
        assert unit["mean"] == pytest.approx(float(values.mean()), rel=1e-3, abs=1e-5)
        assert unit["high"] == pytest.approx(float(values.max()), rel=1e-3)
        assert unit["zeros"] == pytest.approx(float((values == 0).float().mean()), abs=1e-3)
        best = values.flatten(1).amax(1)
        for image, value, place, box in unit["crops"]:
            assert value == pytest.approx(float(best[image]), rel=1e-3)
            assert float(values[(image, *place)]) == pytest.approx(value, rel=1e-3)
            assert box == [2 * place[0], 2 * place[1], 2 * place[0] + 8, 2 * place[1] + 8]
        assert unit["effect"]["images"] == 18
    labels = np.array([int(file.parent.name) for file in files])
    assert read(made, "changes")["accuracy"] == pytest.approx((output.argmax(1).numpy() == labels).mean(), abs=1e-4)


def test_answers_of_both_networks_are_counted(made: Atlas, digits: Path) -> None:
    model, other = vizcnn.load("lecture"), change("before", "one unit replaced")
    files = sorted(digits.rglob("*.png"))
    labels = np.array([int(file.parent.name) for file in files])
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])[:, None] / 255
    with torch.no_grad():
        now, before = (each(pixels).argmax(1).numpy() for each in (model, other))
    found = read(made, "changes")["answers"]
    assert found["agree"] == pytest.approx((now == before).mean(), abs=1e-4)
    assert found["classes"] == [
        [c, 6, int(((before == c) & (labels == c)).sum()), int(((now == c) & (labels == c)).sum())] for c in range(3)
    ]
    for name, right, wrong in (("gained", now, before), ("lost", before, now)):
        total, shown = found[name]
        own = (right == labels) & (wrong != labels)
        assert total == own.sum()
        assert len(shown) == min(12, total)
        assert all(own[n] and wrong[n] == said for n, said in shown)


def test_units_in_each_others_place_are_found_there(made: Atlas, tmp_path: Path) -> None:
    other = change("before", "two units in each other's place")
    model, index = vizcnn.load("lecture"), made.work / "index"
    found = vizcnn.atlas(model, folder=tmp_path / "site", index=index, compare=other, **QUICK)
    changes = read_changes(found, CONV2)
    assert set(np.flatnonzero(changes["change"] > 1e-6)) == set(SWAPPED)
    assert changes["nearest"][[*SWAPPED]].tolist() == [*reversed(SWAPPED)]
    np.testing.assert_allclose(changes["like"][[*SWAPPED]], 1, atol=1e-5)
    assert (read_changes(found, FC1)["change"] < 1e-3).all()  # which reads them in their new places
    answers = read(found, "changes")["answers"]
    assert (answers["agree"], answers["gained"], answers["lost"]) == (1, [0, []], [0, []])


def test_the_same_weights_are_said_to_be_the_same(made: Atlas, tmp_path: Path) -> None:
    model, index = vizcnn.load("lecture"), made.work / "index"
    found = vizcnn.atlas(model, folder=tmp_path / "site", index=index, compare="lecture", **QUICK)
    assert read(found, "network")["compare"]["same"] is True
    assert read(found, "changes")["layers"] == []
    assert "compared with lecture (the other): the same weights, so nothing differs" in str(found)
    assert not [file for file in (found.folder / "data").iterdir() if file.name[0] in "BQ"]
    assert not [*tmp_path.rglob("shard*")]  # it was not scanned again


# -------------------------------------------------------------------------------------- what cannot be compared


class Wider(nn.Module):
    """The layers of `lecture`, of which one has more units and the last other classes."""

    def __init__(self, names: tuple[str, ...] = ("conv1", "conv2", "fc1", "fc2")) -> None:
        super().__init__()
        first, second, third, last = self.names = names
        self.add_module(first, nn.Conv2d(1, 25, 3))
        self.add_module(second, nn.Conv2d(25, 60, 3))
        self.add_module(third, nn.Linear(60, 100))
        self.add_module(last, nn.Linear(100, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, last = (self.get_submodule(name) for name in self.names)
        x = torch.relu(second(torch.relu(first(x)))).amax((2, 3))
        found: torch.Tensor = last(torch.relu(third(x)))
        return found


def test_layers_that_cannot_be_compared_are_named(made: Atlas, tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = vizcnn.Model(Wider(), size=28, channels=1, name="wider")
    found = vizcnn.atlas(
        vizcnn.load("lecture"), folder=tmp_path / "site", index=made.work / "index", compare=other, **QUICK
    )
    changes = read(found, "changes")
    assert [i for i, *_ in changes["layers"]] == [0, FC1]
    left = dict(changes["left"])
    assert left["conv2"].startswith("50 x ")
    assert "60 x " in left["conv2"]
    assert left["fc2"] == "10 here, and 4 in wider"
    assert changes["answers"] == {"missing": "The two networks do not tell the same classes apart."}
    unit = read(found, "B0-0")[0]
    assert unit["classes"] == {"missing": "The two networks do not tell the same classes apart."}
    assert "2 layers cannot be compared" in str(found)


def test_classes_of_other_names_are_not_compared(made: Atlas, tmp_path: Path) -> None:
    other = change("other", "one unit replaced")
    other.labels = tuple(f"digit {c}" for c in range(10))
    found = vizcnn.atlas(
        vizcnn.load("lecture"), folder=tmp_path / "site", index=made.work / "index", compare=other, **QUICK
    )
    assert dict(read(found, "changes")["left"]) == {"fc2": "its classes are called otherwise in other"}
    assert "175 units in 3 layers; 1 layer cannot be compared" in str(found)


def test_networks_that_cannot_be_compared_at_all_are_refused_first(digits: Path, tmp_path: Path) -> None:
    def refuse(other: vizcnn.Model, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said) as caught:
            vizcnn.atlas(vizcnn.load("lecture"), digits, tmp_path / "site", compare=other, **QUICK)
        assert str(caught.value).count("Atlas on ") <= 1
        assert not any(tmp_path.iterdir())

    strange = vizcnn.Model(Wider(("a", "b", "c", "d")), size=28, channels=1, name="strange")
    said = "strange has no layer in common with lecture, and .* Name a checkpoint of the same architecture"
    refuse(strange, ParameterError, said)
    larger = vizcnn.Model(Wider(), size=32, channels=1, name="larger")
    refuse(larger, ParameterError, "do not see the same of an image: 1 x 32 x 32 px .* one --input-size for both")
    box = vizcnn.Model(lambda x: x.mean((2, 3)), size=28, channels=1)
    refuse(box, UnsuitableNetwork, "black box")


@pytest.mark.parametrize("given", [3, nn.Linear(1, 1)])
def test_what_is_no_model_is_refused_first(digits: Path, tmp_path: Path, given: Any) -> None:
    for models in ((vizcnn.load("lecture"), given), (given, None)):
        with pytest.raises(ParameterError, match=r"an atlas needs a vizcnn\.Model, got (int|Linear)\. Wrap a network"):
            vizcnn.atlas(models[0], digits, tmp_path / "site", compare=models[1], **QUICK)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("undecided", ["own", "other"])
def test_the_last_layer_of_a_network_that_cannot_be_followed_is_the_output_of_one_that_can(undecided: str) -> None:
    models = {name: vizcnn.Model(Small(1), size=28, channels=1, name=name) for name in ("own", "other")}
    sites = {name: find_sites(model) for name, model in models.items()}
    models[undecided] = vizcnn.Model(Undecided(1), size=28, channels=1, name=undecided)
    sites[undecided] = find_sites(models[undecided])
    assert sites[undecided].graph is None
    found = pair_sites(models["own"], sites["own"], models["other"], sites["other"], is_whole=True)
    assert found.pairs == {0: 0, len(sites["own"].sites) - 1: len(found.sites.sites) - 1}
    assert found.left_out == (("fc", f"it is the output of {'own' if undecided == 'other' else 'other'}"),)


def test_too_few_images_for_a_change_are_said(digits: Path, tmp_path: Path) -> None:
    two = sorted(digits.rglob("*.png"))[:2]
    found = vizcnn.atlas(
        vizcnn.load("lecture"), two, tmp_path / "site", compare=change("b", "one unit replaced"), layers=["conv2"],
        **QUICK,
    )  # fmt: skip
    assert read(found, "changes")["layers"][0][1] == {
        "missing": "It takes 3 images in the sample of both scans, and there are 2."
    }


# ----------------------------------------------------------------------------------------- files, time, command


class Small(nn.Module):
    """Few units, so that their pictures take no time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv, self.fc = nn.Conv2d(1, 3, 5, stride=4), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return answer


class Undecided(Small):
    """A network that cannot be followed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if float(x.sum()) > -1 else -x)


def test_networks_with_the_same_weights_that_read_images_otherwise_are_scanned_apart(
    digits: Path, tmp_path: Path
) -> None:
    model = vizcnn.Model(Small(1), size=28, channels=1, mean=[0], std=[1])
    said = []
    for mean in (0.5, 0.25, 0.5):
        other = vizcnn.Model(Small(1), size=28, channels=1, mean=[mean], std=[1], name="shifted")
        made = vizcnn.atlas(model, digits, tmp_path / "site", compare=other, **QUICK)
        said.append(read(made, "B0-0")[0]["mean"])
    assert said[0] == said[2] != said[1]
    assert len([*made.work.glob("index-*")]) == 2


def test_the_other_scan_is_kept_and_goes_on(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = (vizcnn.Model(Small(seed), size=28, channels=1, name="small") for seed in (1, 2))
    folder = tmp_path / "site"
    wanted: dict[str, Any] = {**QUICK, "pictures": ["conv"], "compare": other}

    def stop(*_given: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "write_site", stop)
        with pytest.raises(KeyboardInterrupt):
            vizcnn.atlas(model, digits, folder, **wanted)
    scans = list((tmp_path / "site.work").rglob("shard*"))
    assert len({file.parent.name for file in scans}) == 2
    times = {file: file.stat().st_mtime_ns for file in scans}
    cost = estimate(model, digits, folder, pictures=["conv"], effects=0.0, compare=other)
    assert not any("scan" in kind for kind in cost.seconds)  # both are there
    assert "pictures of the other network" in cost.seconds
    first = vizcnn.atlas(model, digits, folder, **wanted)
    assert {file: file.stat().st_mtime_ns for file in scans} == times
    assert [file for file in (folder / "unit").iterdir() if file.name.startswith("other-0-")]
    assert "compared with small (the other)" in str(first)
    from vizcnn.anatomy import pictures as making

    monkeypatch.setattr(making, "optimize", None)  # not called: those of both networks were kept
    assert vizcnn.atlas(model, digits, folder, **wanted).size == first.size
    vizcnn.atlas(model, digits, folder, **QUICK)  # without the other, nothing of it is left
    assert not [file for file in folder.rglob("*") if file.name.startswith(("other-", "B", "Q", "changes"))]


def test_without_images_of_the_data_set_nothing_of_them_is_left(made: Atlas, tmp_path: Path) -> None:
    model, other = vizcnn.load("lecture"), change("before", "one unit replaced")
    found = vizcnn.atlas(
        model, folder=tmp_path / "site", index=made.work / "index", compare=other, dataset_images=False, **QUICK
    )
    files = [file for file in found.folder.rglob("*") if file.is_file()]
    assert any(b"secretname" in file.read_bytes() for file in made.folder.rglob("*") if file.is_file())
    assert not any(b"secretname" in file.read_bytes() for file in files)
    assert not [file for file in files if file.parent.name == "photo"]
    assert not [file for file in files if file.name[0] in "AINPQW" and file.parent.name == "data"]
    assert read(found, "B1-0")


def test_labels_of_an_index_hold_for_the_other_network_too(digits: Path, tmp_path: Path) -> None:
    files = sorted(digits.rglob("*.png"))
    labels = {str(file.relative_to(digits)): str(n % 9) for n, file in enumerate(files)}
    model = vizcnn.load("lecture")
    first = vizcnn.atlas(model, digits, tmp_path / "a", labels=labels, layers=["fc*"], **QUICK)
    found = vizcnn.atlas(
        model, folder=tmp_path / "b", index=first.work / "index", layers=["fc*"],
        compare=change("before", "one unit replaced"), **QUICK,
    )  # fmt: skip
    assert [row[1] for row in read(found, "changes")["answers"]["classes"]] == [2] * 9
    assert {c for c, _ in read(found, "B0-0")[0]["classes"]} <= set(range(10))


@pytest.mark.parametrize("dataset_images", [True, False])
def test_size_and_time_count_both_networks(made: Atlas, digits: Path, tmp_path: Path, dataset_images: bool) -> None:
    model, other = vizcnn.load("lecture"), change("before", "one unit replaced")
    given: dict[str, Any] = {"compare": other, "dataset_images": dataset_images, "pages": QUICK["pages"]}
    cost = estimate(model, digits, tmp_path / "site", pictures="none", effects=4.0, **given)
    assert not any(tmp_path.iterdir())
    assert cost.seconds["effects of the other network"] == 4
    assert cost.seconds["scan of the other network"] > 0
    assert cost.size["comparison"] > 0
    if dataset_images:
        assert sum(cost.size.values()) == pytest.approx(made.size, rel=0.15)
        found = sum(file.stat().st_size for file in (made.folder / "data").iterdir() if file.name[0] in "BQc")
        assert cost.size["comparison"] == pytest.approx(found, rel=0.25)


def test_the_command(digits: Path, tmp_path: Path) -> None:
    other = change("before", "one unit replaced")
    save_file(dict(other.network.state_dict()), tmp_path / "old.safetensors")
    given = ["atlas", str(digits), "-m", "lecture", "-o", str(tmp_path / "site"), "--pictures", "none"]
    given += ["--effects", "0", "--layers", "conv?", "--compare", f"lecture@{tmp_path / 'old.safetensors'}"]
    answer = CliRunner().invoke(main, [*given, "-q", "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)["results"][0]
    assert said["compared"] == "compared with lecture@old.safetensors: 85 units in 3 layers"
    origin = json.loads((tmp_path / "site" / "atlas.json").read_text())["origin"]
    assert dict(origin["options"])["compared with"].startswith("lecture@old.safetensors, weights ")
    wrong = CliRunner().invoke(main, [*given, "--compare", str(tmp_path / "none.safetensors")])
    assert wrong.exit_code == 1
    assert wrong.stderr.count("\n") == 1
