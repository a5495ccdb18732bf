"""What an atlas costs is known first: its size to 15%, and nothing is written to find it out."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import ImageError, ParameterError, VizcnnWarning
from vizcnn.site.building import estimate

QUICK: dict[str, Any] = {"pictures": "none", "effects": 0.0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits, in a folder for each, somewhat apart from each other."""
    folder, random = tmp_path_factory.mktemp("data") / "digits", np.random.default_rng(0)
    for i in range(30):
        (folder / str(i % 10)).mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).text(random.integers(4, 10, 2).tolist(), str(i % 10), 255, font_size=16)
        image.save(folder / str(i % 10) / f"{i:03}.png")
    return folder


def test_an_estimate_takes_what_the_atlas_takes() -> None:
    asked = [one for one in signature(vizcnn.atlas).parameters.values() if one.name not in ("client", "progress")]
    assert [*signature(estimate).parameters.values()] == asked


@pytest.mark.parametrize("dataset_images", [True, False])
def test_the_size_is_known_to_15_percent(digits: Path, dataset_images: bool, tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    before = model.weights_sha256()
    cost = estimate(model, digits, tmp_path / "site", dataset_images=dataset_images, **QUICK)
    assert not any(tmp_path.iterdir())
    assert model.weights_sha256() == before
    made = vizcnn.atlas(model, digits, tmp_path / "site", dataset_images=dataset_images, progress=False, **QUICK)
    assert sum(cost.size.values()) == pytest.approx(made.size, rel=0.15)
    assert (cost.units, cost.images) == (made.units, made.images)
    assert ("photographs" in cost.size) == dataset_images


def test_a_trial_makes_pictures_that_it_does_not_keep(digits: Path, tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    cost = estimate(model, digits, tmp_path / "site", pictures=["fc2"], effects=7.0)
    assert not any(tmp_path.iterdir())
    assert cost.seconds["effects"] == 7
    assert cost.seconds["pictures"] > 0
    assert cost.size["optimised pictures"] > 0
    assert "optimised pictures" in str(cost)
    assert cost.recipe == "robust"
    short = estimate(model, digits, tmp_path / "site", pictures="all", recipe="quick", effects=0.0)
    assert "pictures (quick) " in str(short)
    with pytest.raises(ParameterError, match="recipe must be one of .*quick.*got 'robst'"):
        estimate(model, digits, tmp_path / "site", recipe="robst")


def test_the_command_says_it_and_writes_nothing(digits: Path, tmp_path: Path) -> None:
    given = ["atlas", str(digits), "-m", "lecture", "-o", str(tmp_path / "site"), "--pictures", "none", "--estimate"]
    answer = CliRunner().invoke(main, given)
    assert answer.exit_code == 0, answer.output
    assert "185 units and 30 images will take about" in answer.stdout
    answer = CliRunner().invoke(main, [*given, "--json", "-q"])
    said = json.loads(answer.stdout)["results"][0]
    assert said["units"] == 185
    assert said["size"]["page"] > 0
    assert not any(tmp_path.iterdir())


def test_a_usual_call_says_it_first(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vizcnn.atlas(vizcnn.load("lecture"), digits, tmp_path / "site", layers=["fc2"], **QUICK)
    assert capsys.readouterr().err.startswith("vizcnn: 10 units and 30 images will take about")


def test_what_an_earlier_call_has_kept_takes_no_time_again(digits: Path, tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    wanted: dict[str, Any] = {"pictures": "none", "effects": 1.0, "pages": 2, "layers": ["conv*"]}
    kinds = {"scan", "effects", "links", "maps"}
    assert set(estimate(model, digits, tmp_path / "site", **wanted).seconds) == kinds
    vizcnn.atlas(model, digits, tmp_path / "site", progress=False, **wanted)
    assert not estimate(model, digits, tmp_path / "site", **wanted).seconds
    assert set(estimate(model, digits, tmp_path / "site", **{**wanted, "effects": 2.0}).seconds) == {"effects"}
    maps = estimate(model, digits, tmp_path / "site", **{**wanted, "pages": 3}).seconds
    assert set(maps) == {"maps"}
    other = vizcnn.load("lecture")
    next(iter(other.network.parameters())).data.mul_(0.5)  # nothing that was kept is of this network
    assert kinds - {"scan"} <= set(estimate(other, digits, tmp_path / "site", **wanted).seconds)


class Unfollowed(torch.nn.Module):
    """Looks at its values, so that it cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.conv(x).relu().amax((2, 3))
        answer: torch.Tensor = self.fc(found if float(found.detach().sum()) > -1 else -found)
        return answer


@pytest.mark.filterwarnings("ignore:21 of 30 images count as unlabelled", "ignore:Unfollowed cannot be followed")
def test_what_cannot_be_followed_or_read_is_estimated_or_refused(digits: Path, tmp_path: Path) -> None:
    model = vizcnn.Model(Unfollowed(), size=28, channels=1)
    with pytest.warns(VizcnnWarning, match="Unfollowed cannot be followed, and its atlas lacks what needs its graph"):
        cost = estimate(model, digits, tmp_path / "site", **QUICK)
    made = vizcnn.atlas(model, digits, tmp_path / "site", progress=False, **QUICK)
    assert sum(cost.size.values()) == pytest.approx(made.size, rel=0.15)
    assert "links" not in cost.seconds
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="none of the images that were tried can be read"):
        estimate(model, broken, tmp_path / "other", **QUICK)
