"""atlas(): networks and images that people bring along, which lack something or do what no textbook does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support_site import Visitor, write_noise
from torch import Tensor, nn
from torch.nn import functional

import vizcnn
from vizcnn.errors import ImageError, OutputError, ParameterError, VizcnnWarning
from vizcnn.site.building import Atlas, estimate

if TYPE_CHECKING:
    from playwright.sync_api import Browser

QUICK: dict[str, Any] = {"pictures": "none", "effects": 0.0, "pages": 2}


class Recurrent(nn.Module):
    """A convolution that runs twice, of which the second run reads what no site gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.relu(self.again(x))
        x = self.relu(self.again(x) + x)
        return self.last(torch.relu(self.first(x.mean((2, 3)))))  # type: ignore[no-any-return]


class Rounding(nn.Module):
    """Behind the first layer no gradient leads to the image, as in a network that computes with whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x)).detach()
        return self.last(torch.relu(self.body(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Doubting(Recurrent):
    """It looks at numbers before it goes on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.mean()) < 2 else -x)


class Joining(nn.Module):
    """Like the end of a U-Net: a convolution reads two layers side by side, and one has no zeros to be cut off at."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(x))
        x = functional.silu(self.up(torch.cat([torch.relu(self.deep(x)), x], 1)))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


def make_model(network: nn.Module, **about: Any) -> vizcnn.Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0.1, 0.3)
    return vizcnn.Model(network.eval(), size=16, channels=1, head="logits", **about)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "digits", 12)


def read(made: Atlas, name: str) -> Any:
    text = (made.folder / "data" / f"{name}.js").read_text()
    return json.loads(text.removeprefix("ATLAS.put(...").removesuffix(");\n"))[1]


def test_layers_by_hand_are_those_that_can_be_computed_and_the_size_counts_no_others(
    digits: Path, tmp_path: Path
) -> None:
    model, folder = make_model(Recurrent()), tmp_path / "site"
    cost = estimate(model, digits, folder, **QUICK)
    made = vizcnn.atlas(model, digits, folder, progress=False, **QUICK)
    network = read(made, "network")
    shown = [network["layers"][i]["name"] for i, _ in network["hand"]]
    assert shown == ["stem", "first", "last"]
    assert sum(cost.size.values()) == pytest.approx(made.size, rel=0.15)
    with pytest.warns(VizcnnWarning, match="again cannot be computed by hand: behind the operation 'relu'"):
        asked = estimate(model, digits, folder, by_hand=["again"], **QUICK)
    assert asked.size["activations by hand"] == 0


def test_a_layer_that_no_gradient_leaves_has_no_pictures_and_says_why(digits: Path, tmp_path: Path) -> None:
    model, folder = make_model(Rounding()), tmp_path / "site"
    wanted: dict[str, Any] = {**QUICK, "pictures": "all", "recipe": "quick", "effects": 1.0}
    assert estimate(model, digits, folder, **wanted).seconds["pictures"] > 0
    made = vizcnn.atlas(model, digits, folder, progress=False, **wanted)
    assert "flips" in read(made, "U1-0")["units"][0]["effect"]
    layers = [layer["name"] for layer in read(made, "network")["layers"]]
    assert layers == ["stem", "body", "last"]
    assert len([*(folder / "unit").glob("0-*.webp")]) == 4
    assert read(made, "U1-0")["units"][0]["picture"] == {
        "missing": "It takes a gradient, and none leads from this layer to the image."
    }


def test_labels_that_are_no_class_are_warned_of_and_not_called_missing(digits: Path, tmp_path: Path) -> None:
    model = make_model(Recurrent(), labels=["cat", "dog", "goat"])
    names = [file.relative_to(digits).as_posix() for file in sorted(digits.rglob("*.png"))]
    labels = {name: ("Cat", "dog")[i % 2] for i, name in enumerate(names)}
    some = "6 of 12 images count as unlabelled, since 'Cat' names no class of Recurrent, .* Did you mean 'cat'?"
    with pytest.warns(VizcnnWarning, match=some):
        made = vizcnn.atlas(model, digits, tmp_path / "some", labels=labels, progress=False, **QUICK)
    assert "missing" not in str(read(made, "network")["accuracy"])
    with pytest.warns(VizcnnWarning, match="12 of 12 .* 'a' and 1 other label name no class"):
        made = vizcnn.atlas(
            model, digits, tmp_path / "none", labels=dict(zip(names, "ab" * 6, strict=True)), progress=False, **QUICK
        )
    missing = {"missing": "No label of the images is the name of a class of the network."}
    assert read(made, "network")["accuracy"] == missing
    first, *_ = read(made, "C0")
    assert (first["right"], first["early"], first["votes"]) == (missing, missing, missing)


def test_images_that_cannot_be_read_are_said(digits: Path, tmp_path: Path) -> None:
    model, data = make_model(Recurrent()), tmp_path / "data"
    data.mkdir()
    (data / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"none of the images can be read, the first: bad\.png is not an image"):
        vizcnn.atlas(model, data, tmp_path / "site", progress=False, **QUICK)
    for i, file in enumerate(sorted(digits.rglob("*.png"))):
        (data / f"{i}.png").write_bytes(file.read_bytes())
    made = vizcnn.atlas(model, data, tmp_path / "another", progress=False, **QUICK)
    assert made.images == 12
    assert [name for name, _ in made.unreadable] == ["bad.png"]
    assert "1 image could not be read and left out, the first: bad.png is not an image" in str(made)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"effects": -1.0}, "effects are seconds, at least 0, got -1.0"),
        ({"effects": float("nan")}, "effects are seconds, at least 0, got nan"),
        ({"pages": 2.5}, "at least 1, got 2.5"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"layers": "stem"}, "layers are a list of names or patterns, got 'stem'"),
        ({"index": "site"}, r"site holds no index of a scan\. That of an atlas SITE is in SITE\.work/index"),
    ],
)
def test_what_is_no_option_is_said_before_anything_runs(
    wrong: dict[str, Any], said: str, digits: Path, tmp_path: Path
) -> None:
    images = None if "index" in wrong else digits
    with pytest.raises((ParameterError, OutputError), match=said):
        vizcnn.atlas(make_model(Recurrent()), images, tmp_path / "site", progress=False, **{**QUICK, **wrong})
    assert not any(tmp_path.iterdir())


def test_layers_that_are_joined_are_no_shortcut_and_negative_numbers_no_silence(
    browser: Browser, digits: Path, tmp_path: Path
) -> None:
    model = make_model(Joining())
    with torch.no_grad():
        nn.init.constant_(model.layer("up").bias, -6.0)  # type: ignore[arg-type]
    made = vizcnn.atlas(
        model, digits, tmp_path / "site", progress=False, **{**QUICK, "pictures": ["up"], "recipe": "quick"}
    )
    paths = {layer["name"]: layer["paths"] for layer in read(made, "network")["layers"]}
    assert [path["joined"] for path in paths["up"]] == [False, True]
    assert all(not path["joined"] for name in ("down", "deep", "last") for path in paths[name])
    assert all(unit["picture"] < 0 and unit["high"] < 0 for unit in read(made, "U2-0")["units"])
    visitor = Visitor(browser, made.folder)
    page = visitor.go("")
    assert "1×1 conv, 2 layers joined, SiLU" in page.inner_text(".row:nth-of-type(3)")
    assert page.locator(".net .sum").count() == 0
    assert "up of deep, joined with up of down" in visitor.follow("up").inner_text("main .lead")
    text = visitor.follow("up/1").inner_text("main")
    assert "shortcut" not in text
    assert "reached in this optimised picture; the highest of all images is −" in text
    visitor.close()
    assert not visitor.trouble


def test_of_two_networks_the_one_that_cannot_be_followed_is_named(digits: Path, tmp_path: Path) -> None:
    other = make_model(Doubting(), name="doubting")
    with pytest.warns(VizcnnWarning, match="doubting cannot be followed"):
        estimate(make_model(Recurrent()), digits, tmp_path / "site", compare=other, **QUICK)
