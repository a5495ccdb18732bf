"""What a site's folder holds: files of our names, numbers that can be read back, and nothing of anybody else's."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_records import MadeUp, count_units
from hatchling.builders.wheel import WheelBuilder
from support_comparison import Different, MadeUpOther
from support_site import BREAKING, HOSTILE, Computed, Hostile, Unmeasured

import vizcnn
from vizcnn.errors import OutputError, ParameterError
from vizcnn.site.depths import choose_layers
from vizcnn.site.estimate import Contents, describe_size, estimate_size
from vizcnn.site.packing import encode_webp, pack_halves, round_number, to_script
from vizcnn.site.records import ByHand, Layer, Missing, Picture
from vizcnn.site.writer import write_site

STATIC = Path(vizcnn.__file__).parent / "site" / "static"


def read(site: Path, key: str) -> Any:
    """The value of a data file."""
    text = (site / "data" / f"{key}.js").read_text(encoding="ascii")
    found = re.fullmatch(r"ATLAS\.put\(\.\.\.(.*)\);\n", text, re.DOTALL)
    assert found
    name, value = json.loads(found[1])
    assert name == key
    return value


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "atlas"
    write_site(MadeUp(), folder, progress=False)
    return folder


def list_files(site: Path) -> list[str]:
    return sorted(str(file.relative_to(site)) for file in site.rglob("*") if file.is_file())


def test_names_of_files_are_numbers_of_ours_whatever_people_call_things(tmp_path: Path) -> None:
    write_site(Hostile(), tmp_path / "atlas", progress=False)
    ours = r"index\.html|atlas\.(css|json)|script/[a-z]+\.js|data/(network|images|depths)\.js"
    ours += r"|data/[LPUCNIWA]\d+(-\d+)?\.js|unit/(\d+|class)-\d+\.webp|photo/\d+\.webp"
    assert not [name for name in list_files(tmp_path / "atlas") if not re.fullmatch(ours, name)]
    assert list_files(tmp_path) == [f"atlas/{name}" for name in list_files(tmp_path / "atlas")]


def test_another_network_has_files_of_our_names_that_go_with_it(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    write_site(MadeUp(), folder, compared=MadeUpOther(), progress=False)
    added = set(list_files(folder)) - set(list_files(site))
    assert all(re.fullmatch(r"data/(B\d-0|Q\d|changes)\.js|unit/other-\d-\d+\.webp", name) for name in added)
    assert len([name for name in added if name.startswith("unit/")]) == count_units(MadeUp())
    crops = read(folder, "B3-0")[7]["crops"]
    assert [crop[0] for crop in crops] == [crop.image for crop in list(MadeUpOther().units(3))[7].crops]
    write_site(MadeUp(), folder, compared=Different(hostile=HOSTILE), progress=False)
    assert all("<" not in file.read_text() for file in (folder / "data").iterdir())
    assert read(folder, "network")["compare"]["other"] == f"other {HOSTILE}"
    write_site(MadeUp(), folder, progress=False)
    assert list_files(folder) == list_files(site)
    assert read(folder, "network")["compare"] is None


def test_data_files_are_ascii_and_hold_no_markup(tmp_path: Path) -> None:
    write_site(Hostile(), tmp_path / "atlas", progress=False)
    for file in (tmp_path / "atlas" / "data").iterdir():
        text = file.read_bytes().decode("ascii")
        assert "<" not in text
        assert "\n" not in text[:-1]
    assert read(tmp_path / "atlas", "network")["classes"][0] == HOSTILE
    assert "\\u202e" in read(tmp_path / "atlas", "network")["classes"][1]  # written out, so that it turns nothing


def test_the_page_escapes_what_it_says_of_the_network(tmp_path: Path) -> None:
    write_site(Hostile(), tmp_path / "atlas", progress=False)
    text = (tmp_path / "atlas" / "index.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<img" not in text
    assert "alert(2)</script>" not in text
    assert text.count("<script") == len(list(STATIC.glob("*.js")))


def test_nothing_points_outside(site: Path) -> None:
    for file in [site / "index.html", site / "atlas.css", *(site / "script").iterdir()]:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # the name of a kind of element
        assert not re.search(r"https?:|[\"'(=]//|url\(|@import|fetch\(|XMLHttpRequest|WebSocket", text), file


def test_scripts_make_no_markup_of_texts(site: Path) -> None:
    for file in (site / "script").iterdir():
        unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc"
        assert not re.search(unsafe, file.read_text()), file


def test_every_script_is_read_in_its_order_and_shipped(site: Path) -> None:
    page = (site / "index.html").read_text()
    named = re.findall(r'src="script/([a-z]+)\.js"', page)
    assert sorted(named) == sorted(file.stem for file in STATIC.glob("*.js"))
    root = Path(vizcnn.__file__).parents[1]
    shipped = {file.relative_path for file in WheelBuilder(str(root)).recurse_included_files()}
    for file in [*STATIC.iterdir(), *(STATIC.parent / "templates").iterdir()]:
        assert str(file.relative_to(root)) in shipped


def test_the_policy_forbids_all_but_the_sites_own_files(site: Path) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (site / "index.html").read_text())
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert {rules[name] for name in rules if name.endswith("-src") and name != "default-src"} == {"'self' file:"}


def test_what_it_was_made_from_stands_in_the_folder(site: Path) -> None:
    origin = MadeUp().network.origin
    record = json.loads((site / "atlas.json").read_text())
    assert record["finished"] is True
    assert record["origin"]["weights"] == origin.weights
    page = (site / "index.html").read_text()
    for said in (origin.version, origin.weights, origin.data, origin.made):
        assert said in page


def test_crops_are_read_back_as_they_were(site: Path) -> None:
    records = MadeUp()
    for unit, entry in zip(records.units(3), read(site, "U3-0")["units"], strict=True):
        for crop, (image, value, place, box) in zip(unit.crops, entry["crops"], strict=True):
            assert (crop.image, tuple(place)) == (image, crop.place)
            assert value == pytest.approx(crop.value, rel=1e-3)
            assert crop.box is not None
            assert box == [crop.box.top, crop.box.left, crop.box.bottom, crop.box.right]
            assert (site / "photo" / f"{image}.webp").exists()


def test_walls_are_read_back_as_they_were(site: Path) -> None:
    wall, entry = MadeUp().wall(4), read(site, "L4")
    for values, name in ((wall.highest, "high"), (wall.mean, "mean"), (wall.effect, "effect")):
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(entry[name]), "<f4"), values.astype(np.float32))
    assert isinstance(wall.class_means, np.ndarray)
    shares = np.frombuffer(base64.b64decode(entry["means"]["all"]), np.uint8).reshape(wall.class_means.shape)
    top = np.maximum(wall.class_means.max(1, keepdims=True), 1e-30)
    np.testing.assert_allclose(shares / 255, wall.class_means / top, atol=0.002)


def test_each_depth_is_shown_by_units_that_stand_for_it(site: Path, tmp_path: Path) -> None:
    records = MadeUp()
    depths = read(site, "depths")
    hidden = [layer for layer in records.network.layers if not layer.is_output]
    assert [depth["layer"] for depth in depths] == list(range(len(hidden)))
    for i, (layer, depth) in enumerate(zip(hidden, depths, strict=True)):
        assert [shown["unit"] for shown in depth["units"]] == list(layer.strongest[:3])
        units, wall = list(records.units(i)), records.wall(i)
        for shown in depth["units"]:
            k = shown["unit"]
            assert shown["best"] == wall.best_class[k]
            assert shown["select"] == pytest.approx(wall.selectivity[k], rel=1e-2)
            assert [crop[0] for crop in shown["crops"]] == [crop.image for crop in units[k].crops[:6]]
            assert (shown["kernel"] is not None) == (i == 0)
    write_site(records, tmp_path / "atlas", dataset_images=False, progress=False)
    assert not [crop for depth in read(tmp_path / "atlas", "depths") for u in depth["units"] for crop in u["crops"]]


def test_of_a_deep_network_the_ends_of_its_stages_are_shown() -> None:
    plain = MadeUp().network.layers[0]

    def stack(*sizes: int) -> list[Layer]:
        hidden = [replace(plain, shape=(4, size, size)) for size in sizes]
        return [*hidden, replace(plain, shape=(4,), is_output=True)]

    assert choose_layers(stack(*[32] * 8, *[16] * 8)) == list(range(16))
    stages = stack(64, *[32] * 6, *[16] * 8, *[8] * 12, *[4] * 6)
    assert choose_layers(stages) == [0, 6, 14, 26, 32]
    alike = choose_layers(stack(*[14] * 40))
    assert (len(alike), alike[0], alike[-1]) == (16, 0, 39)
    assert {after - before for before, after in pairwise(alike)} <= {2, 3}


def test_of_many_classes_a_wall_keeps_the_best_of_each_unit(tmp_path: Path) -> None:
    records = MadeUp(widths=(4,), classes_=300, images_=300, closely=0)
    write_site(records, tmp_path / "atlas", progress=False)
    entry = read(tmp_path / "atlas", "L1")["means"]
    means = records.wall(1).class_means
    assert isinstance(means, np.ndarray)
    chosen = np.frombuffer(base64.b64decode(entry["class"]), "<u2").reshape(4, entry["best"])
    np.testing.assert_array_equal(chosen[:, 0], means.argmax(1))


def test_a_histogram_keeps_its_counts_and_where_they_lie(site: Path) -> None:
    unit = next(iter(MadeUp().units(0)))
    chunk = read(site, "U0-0")
    zeros, own, first, counts = chunk["units"][0]["hist"]
    assert not isinstance(unit.histogram, Missing)
    assert len(chunk["edges"]) == 1
    assert zeros == unit.histogram.zeros
    assert counts == [int(n) for n in unit.histogram.counts[first : first + len(counts)]]
    assert sum(counts) == unit.histogram.counts.sum()
    assert chunk["edges"][own][first] == pytest.approx(unit.histogram.edges[first], rel=1e-3)


def test_without_images_of_the_data_set_nothing_of_them_is_left(tmp_path: Path) -> None:
    records = Computed(pictures=False)
    write_site(records, tmp_path / "with", progress=False)
    write_site(records, tmp_path / "without", dataset_images=False, progress=False)
    pixels = {encode_webp(records.photograph(n)) for n in range(records.images_)}
    hand = records.by_hand(0)
    assert not isinstance(hand, Missing)
    secrets = [name.rpartition("/")[2] for name in records.images.names]
    secrets += [json.dumps(read(tmp_path / "with", "I0")["maps"][0]["values"])]
    secrets += [pack_halves(hand.readings[0].says)["values"]]

    def count(folder: Path) -> int:
        found = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
        return sum(content in pixels for content in found) + sum(
            secret.encode() in content for secret in secrets for content in found
        )

    assert count(tmp_path / "with") > len(secrets)  # the search finds them where they are
    assert count(tmp_path / "without") == 0
    assert not [name for name in list_files(tmp_path / "without") if name.startswith("photo/")]
    assert read(tmp_path / "without", "network")["photos"] is False


def test_two_sites_of_the_same_records_are_equal(site: Path, tmp_path: Path) -> None:
    write_site(MadeUp(), tmp_path / "atlas", progress=False)
    assert list_files(tmp_path / "atlas") == list_files(site)
    for name in list_files(site):
        assert (site / name).read_bytes() == (tmp_path / "atlas" / name).read_bytes()


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("somebody's page")
    with pytest.raises(ParameterError, match="not of an atlas, and was left alone"):
        write_site(MadeUp(), tmp_path, progress=False)
    assert list_files(tmp_path) == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "somebody's page"
    with pytest.raises(OutputError, match="is a file"):
        write_site(MadeUp(), tmp_path / "index.html", progress=False)


def test_an_earlier_atlas_makes_place_and_what_else_lies_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    write_site(MadeUp(widths=(8, 30)), folder, progress=False)
    (folder / "data" / "my notes.txt").write_text("mine")
    (folder / "CNAME").write_text("mine")
    write_site(MadeUp(widths=(8,)), folder, progress=False)
    write_site(MadeUp(widths=(8,)), tmp_path / "fresh", progress=False)
    assert set(list_files(folder)) - set(list_files(tmp_path / "fresh")) == {"CNAME", "data/my notes.txt"}


def test_a_site_that_was_interrupted_has_no_page_and_can_be_written_again(tmp_path: Path) -> None:
    class Interrupted(MadeUp):
        def photograph(self, image: int) -> Any:
            raise KeyboardInterrupt(image)

    write_site(MadeUp(), tmp_path / "atlas", progress=False)
    with pytest.raises(KeyboardInterrupt):
        write_site(Interrupted(), tmp_path / "atlas", progress=False)
    assert not (tmp_path / "atlas" / "index.html").exists()
    write_site(MadeUp(), tmp_path / "atlas", progress=False)
    assert (tmp_path / "atlas" / "index.html").exists()


def test_what_nobody_measured_is_written_with_its_reason(tmp_path: Path) -> None:
    write_site(Unmeasured(), tmp_path / "atlas", progress=False)
    network = read(tmp_path / "atlas", "network")
    assert network["accuracy"] == {"missing": "Nobody has measured it."}
    unit = read(tmp_path / "atlas", "U1-0")["units"][0]
    for name in ("hist", "zeros", "classes", "effect", "reads", "feeds", "near"):
        assert unit[name] == {"missing": "Nobody has measured it."}
    assert unit["picture"] == {"missing": "Only crops were asked for."}


@pytest.mark.parametrize("dataset_images", [True, False])
@pytest.mark.parametrize("records", [MadeUp((24, 40), 30, 90), Computed(images_=40)], ids=["units", "by hand"])
def test_the_size_is_known_to_15_percent_before_anything_is_written(
    records: MadeUp, dataset_images: bool, tmp_path: Path
) -> None:
    written = write_site(records, tmp_path / "atlas", dataset_images=dataset_images, progress=False)
    hands = [records.by_hand(i) for i in range(len(records.network.layers))] if isinstance(records, Computed) else []
    readings = [hand.readings[0] for hand in hands if isinstance(hand, ByHand)]
    pictures = [unit.picture for i in range(len(records.network.layers) - 1) for unit in list(records.units(i))[:4]]
    drawn = [len(encode_webp(picture.pixels)) for picture in pictures if isinstance(picture, Picture)]
    contents = Contents(
        records.network,
        images=records.images_,
        name=len(records.images.names[-1]),
        pictures=written.files["optimised pictures"],
        picture=float(np.mean(drawn)) if drawn else 0.0,
        photographs=written.files["photographs"],
        samples=[records.photograph(n) for n in range(9)],
        image_pages=records.closely,
        maps=3,
        map_size=190,
        by_hand=tuple(range(5)) if isinstance(records, Computed) else (),
        readings=2,
        numbers_read=sum(reading.says.size + sum(read.size for read in reading.reads) for reading in readings),
        dataset_images=dataset_images,
    )
    expected = estimate_size(contents)
    assert sum(expected.values()) == pytest.approx(written.size, rel=0.15)
    for kind in ("pages of units", "walls", "classes", "images", "photographs", "activations by hand"):
        assert expected.get(kind, 0) == pytest.approx(written.bytes[kind], rel=0.25), kind
    said = describe_size(expected)
    assert float(said.partition(" MB: ")[0]) == pytest.approx(sum(expected.values()) / 1e6, abs=0.01)
    assert "page " in said


def test_scripts_survive_whatever_a_text_holds() -> None:
    text = "</script><!--\u2028\u2029\ud800 " + BREAKING
    script = to_script("U0-0", text)
    assert script.isascii()
    assert "<" not in script
    assert json.loads(script.removeprefix("ATLAS.put(...").removesuffix(");\n")) == ["U0-0", text]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.123456, 0.1235), (1234567.0, 1235000), (3.0, 3), (-0.0, 0), (np.nan, None), (np.inf, None), (1e-12, 1e-12)],
)
def test_numbers_are_as_short_as_their_digits_allow(value: float, said: float | None) -> None:
    assert round_number(value) == said


def test_numbers_beyond_half_precision_keep_their_size() -> None:
    large = np.array([1e6, -3.0], np.float32)
    packed = pack_halves(large)
    assert not packed["half"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed["values"]), "<f4"), large)
    assert pack_halves(large[1:])["half"]


def test_notes_come_with_the_site(tmp_path: Path) -> None:
    class Noted(MadeUp):
        @property
        def network(self) -> Any:
            return replace(MadeUp().network, notes={"conv1/1": "looks for edges"})

    write_site(Noted(), tmp_path / "atlas", progress=False)
    assert read(tmp_path / "atlas", "network")["notes"] == {"conv1/1": "looks for edges"}
