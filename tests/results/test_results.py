from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from support import ORIGIN

import vizcnn
from vizcnn.errors import ParameterError, VizcnnWarning
from vizcnn.testing import delicate_model


@pytest.fixture(scope="module")
def result() -> vizcnn.Heatmap:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return vizcnn.Occlusion(window=4, stride=2)(delicate_model(), images, target=["a", "b", "c"])


def test_the_numbers_and_their_manifest_come_back_from_every_file(result: vizcnn.Heatmap, tmp_path: Path) -> None:
    with np.load(result.save(tmp_path / "a.npz")) as saved:
        np.testing.assert_array_equal(saved["values"], result.values)
        assert json.loads(str(saved["manifest"])) == result.manifest()
    with safe_open(result.save(tmp_path / "a.safetensors"), "np") as file:
        np.testing.assert_array_equal(file.get_tensor("values"), result.values)
        assert json.loads(file.metadata()["manifest"]) == result.manifest()
    plain = json.loads(result.save(tmp_path / "a.json").read_text())
    assert plain.pop("vizcnn")["kind"] == "Heatmap"
    assert plain == result.manifest()


def test_the_manifest_says_where_the_result_comes_from(result: vizcnn.Heatmap) -> None:
    provenance = result.manifest()["provenance"]
    assert provenance["version"] == vizcnn.__version__
    assert provenance["probe"] == "occlusion"
    assert provenance["options"]["window"] == 4
    assert provenance["weights_sha256"] == delicate_model().weights_sha256()
    assert provenance["targets"] == [["a", "b", "c"]] * 2
    assert provenance["input"]["size"] == [16, 16]
    assert "1311.2901" in provenance["paper"]


@pytest.mark.parametrize(
    ("kind", "start"),
    [("png", b"\x89PNG"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("jpg", b"\xff\xd8")],
)
def test_pictures_in_every_format(result: vizcnn.Heatmap, tmp_path: Path, kind: str, start: bytes) -> None:
    assert result.save(tmp_path / f"a.{kind}").read_bytes().startswith(start)
    assert result.save(tmp_path / f"a.{kind}").stat().st_size > 1000  # and again, over its own kind


def test_the_page_stands_alone(result: vizcnn.Heatmap, tmp_path: Path) -> None:
    page = result.save(tmp_path / "a.html").read_text()
    assert "data:image/png;base64," in page
    assert "costs most" in page
    assert "weights_sha256" in page
    assert "http" not in page.replace("https://", "http://").split("base64,")[0]


def test_a_picture_of_the_first_page_alone_says_so_and_a_pdf_holds_all(tmp_path: Path) -> None:
    long = vizcnn.Table(ORIGIN, ("layer",), tuple((f"conv{i}",) for i in range(250)), ())
    assert long.pages == 3
    for kind in ("png", "svg", "jpg"):
        with pytest.warns(VizcnnWarning, match=rf"a .{kind} picture holds page 1 of 3. Save as .pdf or .html for all"):
            long.save(tmp_path / f"a.{kind}")
    assert long.save(tmp_path / "a.pdf").read_bytes().count(b"/Type /Page ") == 3
    assert long.save(tmp_path / "a.html").read_text().count("<img") == 3
    long.save(tmp_path / "a.npz")


def test_an_unknown_ending_is_refused(result: vizcnn.Heatmap, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"cannot save as 'a.doc': the ending must be one of .jpeg, .jpg"):
        result.save(tmp_path / "a.doc")


def test_the_figure_is_new_each_time_and_has_a_panel_per_map(result: vizcnn.Heatmap) -> None:
    figure = result.figure()
    assert figure is not result.figure()
    assert len(figure.axes) == 2 * (1 + 3 + 1)


def test_maps_of_one_image_share_their_colours_and_zero_is_white(result: vizcnn.Heatmap) -> None:
    figure = result.figure()
    limits = {ax.images[1].get_clim() for ax in figure.axes[1:4]}
    end = float(np.abs(result.values[0]).max())
    assert limits == {(-end, end)}


def test_plot_draws_on_given_axes(result: vizcnn.Heatmap) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert result.plot(ax, image=1, target=2) is ax
    assert result.plot().figure is not figure


def test_drawing_never_touches_pyplot(photo_file: Path) -> None:
    code = (
        "import sys, vizcnn\n"
        f"vizcnn.Occlusion(stride=8)(vizcnn.load('tiny'), {str(photo_file)!r}).figure()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jupyter_gets_a_picture_and_words(result: vizcnn.Heatmap) -> None:
    bundle = result._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"image/png", "text/plain"}
    assert bundle["text/plain"] == result.describe()


def test_a_saved_picture_is_the_one_that_matplotlib_saves(result: vizcnn.Heatmap, tmp_path: Path) -> None:
    """Though it is drawn only once."""
    result.save(tmp_path / "ours.png")
    result.figure().savefig(tmp_path / "theirs.png", dpi=150)
    ours, theirs = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("ours", "theirs"))
    assert np.array_equal(ours, theirs)


def test_the_picture_shows_the_map_where_it_belongs(brightness: vizcnn.Model, tmp_path: Path) -> None:
    """White image, a network that only looks at the upper left quarter: the colour lies there and nowhere else."""
    found = vizcnn.Occlusion(window=2, stride=2, fill="black")(brightness, np.ones((8, 8, 3)), target="corner")
    figure = found.plot().figure
    figure.savefig(tmp_path / "a.png", dpi=100)  # type: ignore[union-attr]
    ax = figure.axes[0]
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)

    def redness(x: float, y: float) -> int:
        across, down = ax.transData.transform((x, y))
        r, _, b = pixels[pixels.shape[0] - 1 - round(down), round(across)]
        return int(r - b)

    assert redness(3, 3) > 60
    assert abs(redness(6, 6)) < 5
    assert abs(redness(6, 1)) < 5


@pytest.mark.parametrize("name", ["a.NPZ", "a.SAFETENSORS", "a.Json", "a.HTML"])
def test_endings_in_capitals_mean_the_same(result: vizcnn.Heatmap, tmp_path: Path, name: str) -> None:
    for _ in range(2):  # also over its own kind
        assert result.save(tmp_path / name).stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.filterwarnings("ignore:no installed font has 猫")
def test_names_are_shown_as_they_are(brightness: vizcnn.Model, tmp_path: Path) -> None:
    photo = vizcnn.Photo(np.random.default_rng(0).random((8, 8, 3), np.float32), "$\\frac{$ 猫 " + "long" * 30)
    found = vizcnn.Occlusion()(brightness, photo, target="all")
    assert found.save(tmp_path / "a.png").exists()
    (title,) = [text.get_text() for text in found.figure().texts if text.get_text().startswith("$\\frac{$")]
    assert "…" in title
