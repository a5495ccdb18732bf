"""The pages in a real browser, opened from their folder: nothing leaves it, nothing hostile runs, all can use them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from atlas_records import MadeUp
from support_comparison import Different, MadeUpOther, Same
from support_site import HOSTILE, Computed, Hostile, Unmeasured, Visitor

from vizcnn.anatomy.changes import Changes
from vizcnn.site.records import Missing
from vizcnn.site.writer import write_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGES = {
    "overview": "",
    "depths": "/depths",
    "wall": "layer2.0.conv2",
    "wall of kernels": "conv1",
    "unit": "layer2.0.conv2/7",
    "unit that reads the image": "conv1/1",
    "dead unit": "layer1.0.conv1/5",
    "classes": "/classes",
    "class": "/class/1",
    "images": "/images",
    "image": "/image/0",
    "image without maps": "/image/20",
    "nothing": "/no-such-page",
}
COMPARED = {
    "overview": "",
    "what changed": "/changes",
    "wall": "layer2.0.conv2",
    "unit": "layer2.0.conv2/7",
    "dead unit": "layer1.0.conv1/5",
    "first layer": "conv1/1",
    "class": "/class/1",
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sites of all kinds, by name."""
    folder = tmp_path_factory.mktemp("sites")
    plain = MadeUp()
    write_site(plain, folder / "plain", progress=False)
    write_site(plain, folder / "without images", dataset_images=False, progress=False)
    write_site(MadeUp(pictures=False), folder / "without pictures", progress=False)
    write_site(MadeUp((250,), 5, 12, side=16, closely=1), folder / "wide", progress=False)
    write_site(Unmeasured(), folder / "unmeasured", progress=False)
    write_site(Hostile(), folder / "hostile", progress=False)
    write_site(Computed(), folder / "computed", progress=False)
    write_site(plain, folder / "compared", compared=MadeUpOther(), progress=False)
    write_site(plain, folder / "compared in part", compared=Different(hostile=HOSTILE), progress=False)
    write_site(plain, folder / "the same", compared=Same(), progress=False)
    write_site(plain, folder / "compared blindly", compared=MadeUpOther(), dataset_images=False, progress=False)
    write_site(Computed(wrong=True), folder / "computed wrongly", progress=False)
    return {site.name: site for site in folder.iterdir()}


@pytest.fixture
def visitor(browser: Browser, sites: dict[str, Path]) -> Iterator[Visitor]:
    """On the plain site, in a window of a desk; whatever a visitor must not get fails the test."""
    visitor = Visitor(browser, sites["plain"])
    yield visitor
    visitor.close()
    assert not visitor.trouble


def list_pages(site: str) -> dict[str, str]:
    if site == "computed":
        return {"by hand": "/by-hand/conv3/3", "dense": "/by-hand/fc1/2"}
    return COMPARED if "compared" in site or site == "the same" else PAGES


@pytest.mark.parametrize("site", ["compared", "compared in part", "compared blindly", "the same"])
def test_pages_of_two_networks_open_and_say_nothing_that_only_a_program_says(
    browser: Browser, sites: dict[str, Path], site: str
) -> None:
    visitor = Visitor(browser, sites[site])
    visitor.go("")
    for name, address in COMPARED.items():
        page = visitor.follow(address)
        text = page.inner_text("main")
        assert "Nothing here" not in text, name
        assert not re.search(r"\bNaN|undefined|\bnull\b|Infinity|\[object|missing\}", text), (address, text)
        page.mouse.wheel(0, 4000)
        assert visitor.read("[...document.images].every(image => image.hasAttribute('alt'))")
        assert visitor.read(_HOSTILE_ELEMENTS) == [], address
    page.wait_for_load_state("networkidle")
    visitor.close()
    assert not visitor.trouble
    assert any(name.startswith("photo/") for name in visitor.files) == (site != "compared blindly")


@pytest.mark.parametrize("site", ["plain", "without images", "without pictures", "unmeasured"])
def test_every_page_opens_without_a_request_a_message_or_a_violation(
    browser: Browser, sites: dict[str, Path], site: str
) -> None:
    visitor = Visitor(browser, sites[site])
    visitor.go("")
    for name, address in PAGES.items():
        page = visitor.go(address) if site == "plain" else visitor.follow(address)
        assert page.inner_text("main h1"), name
        assert ("Nothing here" in page.inner_text("main h1")) == (name == "nothing")
        page.mouse.wheel(0, 4000)  # so that pictures below are read, too
        assert visitor.read("[...document.images].every(image => image.hasAttribute('alt'))")
    page.wait_for_load_state("networkidle")
    visitor.close()
    assert not visitor.trouble
    assert {name.partition("/")[0] for name in visitor.files} <= {
        "index.html",
        "atlas.css",
        "script",
        "data",
        "unit",
        "photo",
    }
    shown = any(name.startswith("photo/") for name in visitor.files)
    assert shown == (site != "without images")


@pytest.mark.parametrize("site", ["plain", "unmeasured", "computed", "compared", "compared in part"])
def test_nothing_scrolls_sideways_on_a_narrow_phone(browser: Browser, sites: dict[str, Path], site: str) -> None:
    visitor = Visitor(browser, sites[site], width=320)
    visitor.go("")
    for name, address in list_pages(site).items():
        visitor.follow(address)
        assert visitor.read("document.documentElement.scrollWidth") <= 320, name
    visitor.close()


_HOSTILE_ELEMENTS = """[...document.querySelectorAll('*')].filter(e =>
    e.matches('main script, iframe, object, embed, [src=x], svg *[href]')
    || [...e.attributes].some(a => /^on/.test(a.name) || /^\\s*javascript:/i.test(a.value))
).map(e => e.outerHTML)"""


def test_nothing_hostile_becomes_an_element_or_runs(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["hostile"])
    page = visitor.go("")
    layer = page.locator("a.row").first.get_attribute("href")
    assert layer is not None
    addresses = ["", layer[1:], f"{layer[1:]}/1", "class", "class/1", "/classes", "/class/0", "/class/1", "/class/2"]
    addresses += ["/images", "/image/0", "/image/1", "/image/2", "/depths"]
    addresses += [HOSTILE, f"/class/{HOSTILE}", f"/{HOSTILE}"]
    for address in addresses:
        visitor.follow(address)
        assert visitor.read(_HOSTILE_ELEMENTS) == [], address
    visitor.follow(f"{layer[1:]}/1")
    assert HOSTILE in page.inner_text("main h1")
    assert page.input_value("#note") == f"evil {HOSTILE}"
    visitor.follow("/image/0")
    assert HOSTILE in page.inner_text("main")
    page.keyboard.press("/")
    for asked in ("<img", "evil", "</script", "script"):
        page.fill("#query", asked)
        assert page.locator("#hits li").count() >= 1
        assert page.locator("#hits [onerror], #hits script, #hits [src=x]").count() == 0
    page.keyboard.press("Enter")
    assert page.title()
    visitor.close()
    assert not visitor.trouble


def test_a_file_of_notes_gives_texts_and_nothing_else(visitor: Visitor, tmp_path: Path) -> None:
    notes = {"layer2.0.conv2/7": f"wheels {HOSTILE}", "class 1": {"an": "object"}, "__proto__": "x", "image 0": 7}
    (tmp_path / "notes.json").write_text(json.dumps({"notes": notes}))
    page = visitor.go("layer2.0.conv2/7")
    page.set_input_files("input[type=file]", tmp_path / "notes.json")
    page.wait_for_function("() => document.getElementById('note').value.includes('wheels')")
    page.reload()
    page.wait_for_selector("#note")
    assert page.input_value("#note") == f"wheels {HOSTILE}"
    (tmp_path / "other.json").write_text("[")
    page.set_input_files("input[type=file]", tmp_path / "other.json")
    page.wait_for_selector("text=This is no file of notes")
    page.fill("#query", "wheels")
    assert page.inner_text("#hits li").startswith("layer2.0.conv2/7: wheels")
    assert visitor.go("/class/1").input_value("#note") == ""


def test_notes_are_kept_and_saved_as_a_file(visitor: Visitor) -> None:
    page = visitor.go("/class/2")
    page.keyboard.press("n")
    page.keyboard.type("furry")
    visitor.follow("/class/3")
    visitor.follow("/class/2")
    assert page.input_value("#note") == "furry"
    with page.expect_download() as download:
        page.click("text=Save all notes")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["notes"] == {"class 2": "furry"}
    assert saved["weights"] == MadeUp().network.origin.weights


# ------------------------------------------------------------------------------------------------- what pages say


def test_a_crop_shows_its_box_of_the_photograph_and_nothing_beside_it(visitor: Visitor) -> None:
    visitor.go("layer1.0.conv2/2")
    unit = list(MadeUp().units(2))[2]
    seen = visitor.read(
        """[...document.querySelectorAll('.example')].map(example => {
            const whole = example.querySelector('.window img').getBoundingClientRect();
            const part = example.querySelector('.window').getBoundingClientRect();
            const own = getComputedStyle(example.querySelector('.window')).overflow;
            const frame = example.querySelector('.shot .box').getBoundingClientRect();
            const shot = example.querySelector('.shot img').getBoundingClientRect();
            const share = (box, of) => [box.top - of.top, box.left - of.left, box.bottom - of.top, box.right - of.left]
                .map((at, n) => at / (n % 2 ? of.width : of.height) * 64);
            return [own, share(part, whole), share(frame, shot), example.querySelector('.window img').src];
        })"""
    )
    assert len(seen) == len(unit.crops)
    for crop, (overflow, part, frame, source) in zip(unit.crops, seen, strict=True):
        assert crop.box is not None
        box = [crop.box.top, crop.box.left, crop.box.bottom, crop.box.right]
        assert overflow == "hidden"
        np.testing.assert_allclose(part, box, atol=0.3)
        np.testing.assert_allclose(frame, box, atol=0.3)
        assert source.endswith(f"photo/{crop.image}.webp")


def test_the_page_of_depths_shows_filters_pictures_and_what_excites_beside_them(visitor: Visitor) -> None:
    page = visitor.go("")
    page.keyboard.press("d")
    page.wait_for_selector(".depths")
    assert visitor.read("document.querySelectorAll('.depth').length") == 7
    assert visitor.read("document.querySelectorAll('.depth:first-child canvas').length") == 3  # its filters
    text = page.inner_text(".depth >> nth=1")
    assert "sees 15 × 15 px, 5.5% of the image" in text
    assert "layer 2 of 7" in text
    links = visitor.read("[...document.querySelectorAll('.depths a')].map(a => a.getAttribute('href'))")
    names = [layer.name for layer in MadeUp().network.layers[:-1]]
    assert links == [f"#{name}{unit}" for name in names for unit in ("", "/0", "/1", "/2")]
    large = visitor.read("document.querySelectorAll('.depth')[1].querySelector('.large img').getAttribute('src')")
    assert large == "unit/1-0.webp"
    crops = next(iter(MadeUp().units(1))).crops
    shown = "[...document.querySelectorAll('.depth')[1].querySelector('.seen').querySelectorAll('.window img')]"
    assert visitor.read(f"{shown}.map(image => image.getAttribute('src'))") == [
        f"photo/{crop.image}.webp" for crop in crops[:3]
    ]
    page.keyboard.press("u")
    page.wait_for_selector(".net")


def test_the_page_of_depths_says_what_it_does_not_show(browser: Browser, sites: dict[str, Path]) -> None:
    said = {
        "without images": "made without the pixels of images",
        "without pictures": "Where nothing stands at the left, no picture was optimised. Only crops were asked for.",
        "unmeasured": "the units of each layer with the highest mean response",
    }
    for site, expected in said.items():
        visitor = Visitor(browser, sites[site])
        assert expected in visitor.go("/depths").inner_text("main"), site
        assert (visitor.page.locator(".seen").count() == 0) == (site == "without images")
        visitor.close()
        assert not visitor.trouble


def _list_units(visitor: Visitor) -> list[int]:
    visitor.page.wait_for_timeout(50)
    found: list[int] = visitor.read(
        "[...document.querySelectorAll('.wall .tile')].map(tile => Number(tile.dataset.unit))"
    )
    return found


@pytest.mark.parametrize("order", ["strength", "mean", "select", "zeros", "effect"])
def test_walls_are_sorted_as_the_numbers_say(visitor: Visitor, order: str) -> None:
    page = visitor.go("layer3.0.conv1")
    assert _list_units(visitor) == list(range(20))
    page.select_option(".tools select", order)
    wall = MadeUp().wall(5)
    keys = {
        "strength": -wall.highest,
        "mean": -wall.mean,
        "select": -wall.selectivity,
        "zeros": -wall.zeros,
        "effect": wall.effect,
    }
    key = np.where(np.isnan(keys[order]), np.inf, keys[order])
    assert _list_units(visitor) == [int(k) for k in np.argsort(key, kind="stable")]


_ROWS = """() => {
    const rows = new Map();
    for (const tile of document.querySelectorAll('.wall .tile')) {
        const y = Math.round(tile.getBoundingClientRect().top + scrollY);
        rows.set(y, (rows.get(y) ?? 0) + 1);
    }
    return [...rows].sort(([a], [b]) => a - b);
}"""


def test_shelves_of_a_wide_wall_join_without_a_gap(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["wide"])
    page = visitor.go("layer1.0.conv2")
    page.wait_for_function("() => document.querySelectorAll('.wall .tile').length === 250")
    foreseen = visitor.read("document.documentElement.scrollHeight")  # of two shelves nothing is laid out yet
    visitor.read(
        "document.querySelectorAll('.shelf').forEach(e => e.style.setProperty('content-visibility', 'visible'))"
    )
    assert visitor.read("document.documentElement.scrollHeight") == pytest.approx(foreseen, rel=0.02)
    for width, columns in [(320, 3), (390, 4), (450, 5), (560, 6), (1000, 6), (1050, 8), (1280, 10), (1500, 12)]:
        page.set_viewport_size({"width": width, "height": 900})
        rows = visitor.read(_ROWS)
        assert [count for _, count in rows] == [columns] * (250 // columns) + [250 % columns] * (250 % columns > 0)
        steps = np.diff([y for y, _ in rows])
        assert steps.max() - steps.min() <= 2, width
    visitor.close()


def test_a_wide_wall_is_light_and_skipped_where_it_is_far(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["wide"])
    page = visitor.go("layer1.0.conv2")
    page.wait_for_function("() => document.querySelectorAll('.wall .tile').length === 250")
    assert visitor.read("document.querySelectorAll('.wall *').length") <= 3 + 250 * 8
    skipped = "tile => !tile.checkVisibility({contentVisibilityAuto: true})"
    assert visitor.read(f"[...document.querySelectorAll('.wall .tile')].map({skipped}).lastIndexOf(false)") < 240
    assert not any(name == "unit/2-249.webp" for name in visitor.files)
    visitor.read("document.querySelector('[data-unit=\"111\"]').focus()")
    for key, unit in [("ArrowDown", 121), ("ArrowLeft", 120), ("ArrowLeft", 119), ("ArrowRight", 120)]:
        page.keyboard.press(key)  # over the edge of a shelf, and back
        assert visitor.read("Number(document.activeElement.dataset.unit)") == unit
    visitor.follow("layer1.0.conv2/249")
    page.keyboard.press("u")
    page.wait_for_function("() => document.activeElement.dataset?.unit === '249'")
    assert visitor.read("document.activeElement.getBoundingClientRect().top") < 900
    page.wait_for_function("() => document.querySelector('[data-unit=\"249\"] img').complete")
    visitor.close()
    assert not visitor.trouble


def test_what_changed_most_comes_first(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["compared"])
    page = visitor.go("/changes")
    layers = MadeUpOther().comparison.layers
    hidden = {i: found for i, found in layers.items() if isinstance(found, Changes) and i < 7}
    units = [(-change, i, k) for i, found in hidden.items() for k, change in enumerate(found.change.tolist())]
    names = [f"{MadeUp().network.layers[i].name}/{k}" for _, i, k in sorted(units)[:60]]
    assert page.locator(".twos .tile b").all_inner_texts() == names
    assert "60% " not in page.inner_text(".facts")
    assert "40.0%" in page.inner_text(".facts")
    classes = page.locator(".bars").first.inner_text().split("\n")
    assert [classes[i] for i in (0, 1)] == ["school bus", "0% → 60%"]
    assert "Named rightly by step 469 alone: 9" in page.inner_text("main")
    page.click(".of-layers a >> text=layer3.0.conv1")
    page.wait_for_selector("h1:has-text('layer3.0.conv1')")
    changes = layers[5]
    assert isinstance(changes, Changes)
    assert _list_units(visitor) == [int(k) for k in np.argsort(-changes.change, kind="stable")]
    page.click("text=in step 67")
    assert page.locator(".wall .tile img").first.get_attribute("src").startswith("unit/other-5-")
    visitor.close()
    assert not visitor.trouble


def test_a_unit_stands_beside_that_of_the_other_network(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["compared"])
    page = visitor.go("layer2.0.conv2/7")
    units = list(MadeUp().units(4)), list(MadeUpOther().units(4))
    table = page.locator(".versus")
    assert table.locator("thead th").all_inner_texts() == ["step 67", "step 469"]
    pictures = table.locator(".big img").evaluate_all("images => images.map(image => image.getAttribute('src'))")
    assert pictures == ["unit/other-4-7.webp", "unit/4-7.webp"]
    values = [float(text) for text in table.locator("figcaption b").all_inner_texts()]
    expected = [crop.value for unit in (units[1][7], units[0][7]) for crop in unit.crops[:6]]
    assert values == pytest.approx(expected, rel=1e-2)
    changes = MadeUpOther().comparison.layers[4]
    assert isinstance(changes, Changes)
    said = page.locator(".card", has=table).inner_text()
    assert f"Change {changes.change[7]:.2g}" in said.replace("0.60", "0.6")
    assert "It is most like the unit of its own number there." in said
    assert "more like unit 0 there" in visitor.follow("layer2.0.conv2/2").inner_text("main")
    assert "it gives the same for all in both networks" in visitor.follow("layer1.0.conv1/5").inner_text("main")
    assert "step 67 names 1 of them." in visitor.follow("/class/1").inner_text("main")
    visitor.close()
    assert not visitor.trouble


def test_what_cannot_be_compared_says_so_on_its_page(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["compared in part"])
    page = visitor.go("layer2.0.conv2")
    said = f"Not compared with other {HOSTILE}. {HOSTILE} has no such layer."
    assert said in page.inner_text("main")
    assert "has no such layer" in visitor.follow("layer2.0.conv2/7").inner_text("main")
    assert "It takes 3 images" in visitor.follow("conv1/1").inner_text("main")
    text = visitor.follow("/changes").inner_text("main")
    assert "6 layers not compared" in text
    assert "Only 0 of 8 units are most like the unit of their own number." in text
    visitor.close()
    visitor = Visitor(browser, sites["the same"])
    assert "the same network with the same weights" in visitor.go("/changes").inner_text("main")
    assert visitor.follow("layer2.0.conv2/7").locator(".versus").count() == 0
    visitor.close()
    visitor = Visitor(browser, sites["plain"])
    assert "compares its network with no other" in visitor.go("/changes").inner_text("main")
    visitor.close()


def test_units_that_speak_for_a_class_are_those_that_respond_more_than_on_average(visitor: Visitor) -> None:
    page = visitor.go("layer3.0.conv2")
    page.fill(".tools input[type=search]", "orange")
    means = MadeUp().wall(6).class_means
    assert not isinstance(means, Missing)
    shares = np.round(means / np.maximum(means.max(1, keepdims=True), 1e-30) * 255) / 255
    ratio = shares[:, 1] / np.maximum((means / np.maximum(means.max(1, keepdims=True), 1e-30)).mean(1), 1e-9)
    expected = [int(k) for k in np.argsort(-ratio) if shares[k, 1] > 40 / 255]
    assert _list_units(visitor) == expected
    assert f"for unit {expected[0]}" in page.inner_text(".found")


def test_what_speaks_loudest_for_and_against_a_class_comes_first(visitor: Visitor) -> None:
    page = visitor.go("/class/1")
    speaking = page.locator("section.card", has=page.locator("h2", has_text="What speaks"))
    said = [speaking.nth(i).locator(".value").all_inner_texts() for i in range(speaking.count())]
    assert [texts[0] for texts in said] == ["+1.23", "−0.866"]
    assert [texts[-1] for texts in said] == ["+0.0345", "−0.266"]


@pytest.mark.parametrize(("asked", "first"), [
    ("layer2.0.conv2/11", "#layer2.0.conv2/11"), ("layer2.0.conv2", "#layer2.0.conv2"), ("bus", "#/class/0"),
    ("ORANGE", "#/class/1"), ("conv1 7", "#conv1/7"), ("7", "#/class/7"),
])  # fmt: skip
def test_search_finds_units_layers_and_classes(visitor: Visitor, asked: str, first: str) -> None:
    page = visitor.go("")
    page.keyboard.press("/")
    page.keyboard.type(asked)
    assert page.get_attribute("#query", "aria-activedescendant") == "hit-0"
    page.keyboard.press("Enter")
    page.wait_for_function("first => location.hash === first", arg=first)
    assert page.get_attribute("#query", "aria-expanded") == "false"


def test_search_says_when_nothing_is_found(visitor: Visitor) -> None:
    page = visitor.go("")
    page.fill("#query", "zebra")
    assert page.inner_text("#hits") == "Nothing of that name."
    page.keyboard.press("Enter")
    assert visitor.read("location.hash") == ""


def test_maps_give_their_numbers_and_how_far_they_can_be_believed(visitor: Visitor) -> None:
    page = visitor.go("/image/0")
    image = next(MadeUp().image_pages())
    first, second, third = image.maps
    assert not isinstance(first.trust, Missing)
    assert page.inner_text(".trust").startswith(f"{first.trust.sign} supported: {first.trust.sentences[0]}")
    box = page.locator(".stage-of-maps").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    row, column = 8, 9
    value = float(first.values[row, column])
    said = page.inner_text(".reading")
    assert said.endswith(f"at row {row}, column {column}")
    assert float(said.split()[0].replace("−", "-")) == pytest.approx(value, abs=0.01)
    page.focus(".stage-of-maps")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".reading").endswith(f"at row {row}, column {column + 1}")
    page.click("text=grad-cam")
    assert not isinstance(second.trust, Missing)
    assert second.trust.verdict in page.inner_text(".trust")
    assert visitor.read("document.querySelector('.stage-of-maps canvas').width") == second.values.shape[1]
    page.click("text=saliency")
    assert isinstance(third.trust, Missing)
    assert page.inner_text(".trust") == f"– not judged: {third.trust.reason}"
    assert image.unmade[0] in page.inner_text("main")


def test_a_touch_shows_where_a_unit_looked(visitor: Visitor) -> None:
    page = visitor.go("/image/1")
    page.locator(".per-layer .chip button").nth(3).tap()
    assert page.locator(".aside .box").count() == 1
    assert "rows" in page.inner_text(".aside p")


def test_what_is_missing_is_said_on_its_page(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["unmeasured"])
    page = visitor.go("")
    assert "Its forward cannot be recorded." in page.inner_text("main")
    assert page.locator(".arc").count() == 0
    assert "as it gives them, before any norm and activation function" in page.inner_text("main")
    assert "the class whose images" not in visitor.go("layer1.0.conv1").inner_text("main")
    text = visitor.go("/class/1").inner_text("main")
    assert "Images that are taken for it, surest first" in text
    assert "✓" not in text, "nobody knows which answers are right"
    assert "no images" not in visitor.go("/classes").inner_text("main")
    text = visitor.go("layer1.0.conv1/1").inner_text("main")
    assert text.count("Nobody has measured it.") >= 7
    assert "Not an optimised picture: the photograph that excites it most. Only crops were asked for." in text
    for word in ("NaN", "undefined", "null", "Infinity", "[object"):
        for address in PAGES.values():
            assert word not in visitor.follow(address).inner_text("main"), address
    visitor.close()
    assert not visitor.trouble


def test_without_its_picture_a_class_shows_its_surest_example(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["without pictures"])
    page = visitor.go("/class/1")
    assert "No picture is optimised for it. Only crops were asked for." in page.inner_text("main")
    page.wait_for_selector(".portrait img[src='photo/1.webp']")
    visitor.follow("/classes")
    page.wait_for_selector(".tile img[src='photo/1.webp']")
    visitor.close()
    assert not visitor.trouble


@pytest.mark.parametrize("site", ["plain", "without images", "without pictures", "computed"])
def test_no_page_says_what_only_a_program_says(browser: Browser, sites: dict[str, Path], site: str) -> None:
    visitor = Visitor(browser, sites[site])
    visitor.go("")
    addresses = ["/by-hand/conv1/2", "fc1", "fc1/3", "conv2/1"] if site == "computed" else PAGES.values()
    for address in addresses:
        text = visitor.follow(address).inner_text("main")
        assert not re.search(r"\bNaN|undefined|\bnull\b|Infinity|\[object|missing\}", text), (address, text)
    visitor.close()
    assert not visitor.trouble


def test_a_missing_file_is_named(browser: Browser, tmp_path: Path) -> None:
    write_site(MadeUp(), tmp_path / "site", progress=False)
    (tmp_path / "site" / "data" / "U3-0.js").unlink()
    visitor = Visitor(browser, tmp_path / "site")
    assert "data/U3-0.js is missing" in visitor.go("layer2.0.conv1/1").inner_text("main")
    (tmp_path / "site" / "data" / "network.js").unlink()
    assert "This atlas is not whole" in visitor.go("").inner_text("main")
    visitor.close()


# ---------------------------------------------------------------------------------------------------- by hand


def test_by_hand_agrees_with_the_network_at_a_hundred_random_places(browser: Browser, sites: dict[str, Path]) -> None:
    """With norms, bias, padding, strides, groups, dilation, identity and 1x1 shortcuts, pooling and dense layers."""
    visitor = Visitor(browser, sites["computed"])
    visitor.go("")
    records, rng = Computed(), np.random.default_rng(1)
    asked, expected = [], []
    for _ in range(100):
        i, n = int(rng.integers(5)), int(rng.integers(2))
        says = records.runs[n][i][1][0].numpy()
        place = [int(rng.integers(size)) for size in says.shape]
        asked.append([i, n, place[0], *(place[1:] or [0, 0])])
        expected.append(float(says[tuple(place)]))
    found = visitor.read(
        """async asked => Promise.all(asked.map(async ([i, n, k, y, x]) => {
            const [terms, reading] = await Promise.all([ATLAS.load(`W${i}`), ATLAS.load(`A${i}-${n}`)]);
            const { result, given, agrees } = ATLAS.hand.compute(ATLAS.net.layers[i], terms, reading, k, y, x);
            return [result, given, agrees];
        }))""",
        asked,
    )
    scale = max(map(abs, expected))
    for (result, given, agrees), said, about in zip(found, expected, asked, strict=True):
        assert result == pytest.approx(said, abs=2e-3 * scale), about
        assert given == pytest.approx(said, abs=2e-3 * scale)
        assert agrees
    visitor.close()
    assert not visitor.trouble


def test_by_hand_says_where_it_does_not_agree(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["computed wrongly"])
    assert "✗" in visitor.go("/by-hand/fc2/1").inner_text(".sums >> nth=1")
    visitor.close()
    visitor = Visitor(browser, sites["computed"])
    assert "✓" in visitor.go("/by-hand/fc2/1").inner_text(".sums >> nth=1")
    visitor.close()


def test_arrows_and_clicks_choose_the_place_that_is_computed(browser: Browser, sites: dict[str, Path]) -> None:
    visitor = Visitor(browser, sites["computed"])
    page = visitor.go("/by-hand/conv2/3/1/4,5")
    assert "row 4, column 5" in page.inner_text("main")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=row 5, column 5")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=row 5, column 4")
    page.locator(".pickable").click(position={"x": 2, "y": 2})
    page.wait_for_selector("text=row 0, column 0")
    assert page.locator("td.padding").count() > 0
    visitor.close()
    assert not visitor.trouble


# ------------------------------------------------------------------------------------------------- for everybody


def test_the_whole_atlas_can_be_walked_with_the_keyboard(visitor: Visitor) -> None:
    page = visitor.go("")
    page.keyboard.press("Tab")
    assert visitor.read("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert visitor.read("document.activeElement.id") == "main"
    visitor.follow("layer3.0.conv2")
    page.keyboard.press("w")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = visitor.read("getComputedStyle(document.querySelector('.shelf')).gridTemplateColumns.split(' ').length")
    assert visitor.read("Number(document.activeElement.dataset.unit)") == 1 + columns
    page.keyboard.press("Enter")
    page.wait_for_selector(f"h1:has-text('layer3.0.conv2/{1 + columns}')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"h1:has-text('layer3.0.conv2/{2 + columns}')")
    page.keyboard.press("u")
    page.wait_for_selector(".wall .tile")
    assert visitor.read("Number(document.activeElement.dataset.unit)") == 2 + columns  # back on its tile
    page.keyboard.press("g")
    page.wait_for_selector(".net")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert visitor.read("document.documentElement.dataset.theme") == "dark"


def test_units_are_walked_in_the_order_of_the_wall(visitor: Visitor) -> None:
    page = visitor.go("layer3.0.conv1")
    page.select_option(".tools select", "mean")
    order = _list_units(visitor)
    visitor.follow(f"layer3.0.conv1/{order[4]}")
    page.keyboard.press("ArrowRight")
    shown = "unit => document.querySelector('h1')?.innerText === `layer3.0.conv1/${unit}`"
    page.wait_for_function(shown, arg=order[5])
    page.go_back()
    page.wait_for_function(shown, arg=order[4])  # else the wall comes back to the unit that was seen before it
    page.go_back()
    page.wait_for_selector(".wall .tile")
    assert _list_units(visitor) == order
    assert visitor.read("Number(document.activeElement.dataset.unit)") == order[4]


_UNNAMED = """[...document.querySelectorAll('a, button, input, select, textarea, summary')].filter(e =>
    e.checkVisibility() && !(e.innerText || '').trim() && !e.getAttribute('aria-label') && !e.closest('label')
    && !e.querySelector('img[alt]:not([alt=""])')
).map(e => e.outerHTML)"""

_CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const toRgb = colour => {
        if (!known.has(colour)) {
            canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            known.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(colour);
    };
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = rgb => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => sum + weight * linear(rgb[i] / 255), 0);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const colour = toRgb(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return toRgb('white');
    };
    const poor = [];
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility() || e.closest('.hidden, option, datalist')) continue;
        const style = getComputedStyle(e);
        const text = toRgb(e instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(text), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) poor.push([ratio.toFixed(2), e.outerHTML.slice(0, 120)]);
    }
    return poor;
}"""


@pytest.mark.parametrize(
    ("site", "scheme"),
    [("plain", "light"), ("plain", "dark"), ("unmeasured", "light"), ("computed", "dark"), ("compared", "light"),
     ("compared in part", "dark")],
)  # fmt: skip
def test_texts_stand_out_and_controls_are_named(
    browser: Browser, sites: dict[str, Path], site: str, scheme: str
) -> None:
    visitor = Visitor(browser, sites[site], scheme=scheme)
    visitor.go("")
    for address in list_pages(site).values():
        visitor.follow(address)
        assert visitor.read(_UNNAMED) == [], address
        assert visitor.read(_CONTRASTS) == [], address
        assert visitor.read("document.querySelectorAll('main h1').length") == 1
    visitor.close()


@pytest.mark.parametrize(
    ("site", "scheme"),
    [("plain", "dark"), ("unmeasured", "light"), ("computed", "light"), ("compared", "dark")],
)
def test_axe_finds_nothing(browser: Browser, sites: dict[str, Path], site: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    visitor = Visitor(browser, sites[site], scheme=scheme)
    visitor.go("")
    visitor.read(script)
    for address in list_pages(site).values():
        visitor.follow(address)
        found: list[dict[str, Any]] = visitor.read("async () => (await axe.run()).violations")
        told = [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"][:3]]
        assert not told, (address, told)
    visitor.close()


@pytest.mark.parametrize("address", ["layer2.0.conv2/7", "/depths"])
def test_it_can_be_printed(visitor: Visitor, address: str) -> None:
    page = visitor.go(address)
    page.emulate_media(media="print", color_scheme="dark")
    assert visitor.read("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visitor.read("document.querySelector('.side').checkVisibility()") is False
    assert page.pdf()[:4] == b"%PDF"
