"""Explanation: its words say only what is supported, its page holds any text, its file opens again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legibility import find_faults

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import (
    STYLES,
    Answer,
    Change,
    Consensus,
    Evidence,
    Explanation,
    Provenance,
    Record,
    Tile,
    Trust,
    UnitEffect,
    load_result,
    use_style,
)
from vizcnn.results.explanation_panels import list_sections

RNG = np.random.default_rng(0)


def make_trust(need: float = 97.0, contrast: float | None = 0.2) -> Trust:
    return Trust(need, 0.5, 0.1, contrast, "whistle", 101)


def make_evidence(method: str, trust: Trust, *, signed: bool = True) -> Evidence:
    values = RNG.normal(size=(24, 24)).astype(np.float32)
    values = values if signed else np.abs(values)
    values[:] *= 1 if values.max() > -values.min() else -1  # most speaks for it
    return Evidence(method, "logit", values, signed, 100.0, trust, "upper left (x 2-9, y 3-8 px)")


def make_explanation(name: str = "cat.jpg", label: str = "tabby", **changes: Any) -> Explanation:
    cells = np.zeros((6, 6), bool)
    cells[1, 2:4] = True
    top, other = Answer(3, label, 7.5, 0.62), Answer(5, "Egyptian cat", 6.0, 0.3)
    pixels = (RNG.random((24, 24, 3)) * 255).round().astype(np.uint8)
    floats = (pixels / 255).astype(np.float32)
    consensus = Consensus(
        ("Occlusion", "RISE"), RNG.random((24, 24)).astype(np.float32), 0.6, "upper left (x 2-9, y 3-8 px)"
    )
    origin = Provenance(
        "0", "2", "explain", {}, {}, "net", "a" * 64, {}, "cpu", ((name, "b"),), ((label,),), (("3",),), 0, ""
    )
    found = Explanation(
        provenance=origin,
        photo=Photo(pixels, name),
        seen=Box(0, 2, 24, 22),
        answers=(top, other, Answer(1, "lynx", 2.0, 0.08)),
        asked=top,
        rival=other,
        quantity="logit",
        score=7.5,
        maps=(
            make_evidence("Occlusion", make_trust()),
            make_evidence("Grad-CAM", make_trust(40.0), signed=False),
            make_evidence("RISE", make_trust(91.0)),
        ),
        left_out=(("Integrated gradients", "no gradient"),),
        consensus=consensus,
        rather=make_evidence("Occlusion", make_trust(99.0)),
        units=(
            UnitEffect("layer4:7", 1.5, np.abs(RNG.normal(size=(3, 3))).astype(np.float32), (Tile(floats, "5.1"),)),
            UnitEffect("layer4:2", 0.5, RNG.normal(size=(3, 3)).astype(np.float32), ()),
        ),
        layer="layer4",
        channels=64,
        tiles_are="optimised",
        units_note="",
        flip=Change(cells, other, floats),
        keep=Change(~cells, top, floats),
        cells=36,
    )
    return replace(found, **changes)


class Page(HTMLParser):
    """What a browser would make of a page: its tags, the texts of pictures, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.alts: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(given["alt"] or "")
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def save_page(found: Explanation, folder: Path) -> Page:
    return Page(found.save(folder / "page.html").read_text(encoding="utf-8"))


def test_each_sentence_has_its_numbers_on_the_page(tmp_path: Path) -> None:
    found = make_explanation()
    assert found.sentences == (
        "The network says “tabby” (62%); next comes “Egyptian cat” (30%).",
        "What speaks most for “tabby” lies in the upper left: Occlusion and RISE each beat at least 91 of 100 random "
        "maps, and they agree (likeness 0.60).",
        "Covering 2 of 36 parts of the image changes the answer to “Egyptian cat” (30%); 2 alone are enough for "
        "“tabby” (62%).",
        "What speaks most for “tabby” rather than “Egyptian cat” lies in the upper left (better than 99 of 100 random "
        "maps).",
    )
    page = save_page(found, tmp_path).text
    for number in ("62%", "30%", "better than 91 of", "likeness 0.60", "2 of 36 parts covered", "better than 99 of"):
        assert number in page


def test_what_is_not_supported_is_not_said() -> None:
    doubted = tuple(replace(one, trust=make_trust(60.0)) for one in make_explanation().maps)
    none = make_explanation(maps=doubted, consensus=None, rather=make_evidence("Occlusion", make_trust(50.0)))
    assert "nothing is said of where" in none.sentences[1]
    assert not any("upper left" in sentence for sentence in none.sentences)
    assert "layer4:7 counts most: without it the logit of “tabby” changes from 7.5 to 6" in none.sentences[3]
    one = make_explanation(maps=make_explanation().maps[:2], consensus=None)
    assert "no second method confirms it" in one.sentences[1]
    assert "Only Occlusion is supported" in one.say_support()
    assert "Left out, as not supported: Grad-CAM" in one.say_support()


def test_a_map_whose_strongest_values_speak_against_the_answer_is_said_to(tmp_path: Path) -> None:
    def turn(one: Evidence) -> Evidence:
        return replace(one, values=-one.values)

    occlusion, cam, _ = make_explanation().maps
    found = make_explanation(maps=(turn(occlusion), cam), consensus=None, rather=turn(occlusion))
    assert (
        "(better than 97 of 100 random maps), but what speaks against it is stronger; no second" in found.sentences[1]
    )
    assert found.sentences[3].endswith("random maps), but what speaks against it is stronger.")
    assert save_page(found, tmp_path).text.count("What speaks against the answer is stronger.") == 2
    page = save_page(make_explanation(maps=(occlusion, cam), consensus=None, rather=occlusion), tmp_path)
    assert "against the answer is stronger" not in page.text


def test_what_a_unit_changes_is_told_in_the_number_that_is_explained(tmp_path: Path) -> None:
    found = make_explanation(quantity="probability", score=0.62, rather=None)
    found = replace(found, units=(replace(found.units[0], effect=0.12),))
    assert "the probability of “tabby” changes from 0.62 to 0.5." in found.sentences[3]
    assert "Without it the probability changes from 0.62 to 0.5." in save_page(found, tmp_path).text


def test_paper_gets_the_wide_page_and_a_small_screen_one_column(tmp_path: Path) -> None:
    make_explanation().save(tmp_path / "page.html")
    look = (tmp_path / "page.html").read_text(encoding="utf-8").partition("</style>")[0]
    narrow = re.findall(r"@media ([^{]*max-width[^{]*)\{", look)
    assert narrow
    assert all(rule.startswith("screen") for rule in narrow)  # paper is about as narrow as a tablet


def test_maps_that_point_at_different_places_are_not_said_to_agree() -> None:
    consensus = make_explanation().consensus
    assert consensus is not None
    apart = make_explanation(consensus=replace(consensus, likeness=0.05))
    assert "do not point at the same place (likeness 0.05)" in apart.sentences[1]
    assert "hardly agree (likeness 0.05), so read each by itself" in apart.say_support()
    together = {panel.title: panel for each in list_sections(apart) for panel in each.panels}["All together"]
    assert together.pixels is None


def test_a_network_without_probabilities_is_told_by_its_scores(tmp_path: Path) -> None:
    answers = tuple(replace(one, probability=None) for one in make_explanation().answers)
    found = make_explanation(answers=answers, asked=answers[0], rival=answers[1])
    assert "“tabby” (7.5); next comes “Egyptian cat” (6)" in found.sentences[0]
    assert "i" not in save_page(found, tmp_path).tags  # no bar of a share that nobody knows


def test_the_page_is_whole_and_runs_nothing_whatever_names_hold(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script>\"><img src=x onerror=y>\x1b"
    page = save_page(make_explanation(name=f"{bad}.jpg", label=bad), tmp_path)
    assert "script" not in page.tags
    assert "alert('x')" in page.text
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert all(page.alts)
    assert len(page.alts) == len(page.sources) == page.tags.count("img")
    raw = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in raw
    assert not re.search(r"url\(|@import|<link|\son\w+=(?![^<]*&)", raw.partition("</style>")[0])
    assert "@media print" in raw
    assert "prefers-color-scheme: dark" in raw


@pytest.mark.parametrize("style", STYLES)
def test_all_texts_of_the_picture_can_be_read(style: str) -> None:
    with use_style(style):
        faults = find_faults(
            make_explanation(label="a class of a very long name of $x_1$, as in ImageNet, " * 2).figure()
        )
        bare = make_explanation(
            maps=(), rather=None, consensus=None, units=(), units_note="Not made: units (a black box)", flip=None,
            keep=None, tiles_are="",
        )  # fmt: skip
        faults += find_faults(bare.figure())
    assert not faults


def test_it_opens_again_as_it_was(tmp_path: Path) -> None:
    found = make_explanation()
    for name in ("a.npz", "a.safetensors"):
        again = load_result(found.save(tmp_path / name))
        assert isinstance(again, Explanation)
        assert again.summary() == found.summary()
        assert again.describe() == found.describe()
        assert again.flip is not None
        assert found.flip is not None
        assert np.array_equal(again.flip.covered, found.flip.covered)
        assert np.allclose(again.flip.pixels, found.flip.pixels, atol=1e-6)
        assert np.array_equal(again.maps[1].values, found.maps[1].values)
        assert np.array_equal(again.units[0].activations, found.units[0].activations)


def test_machines_read_every_finding(tmp_path: Path) -> None:
    found = make_explanation()
    said = json.loads(found.save(tmp_path / "a.json").read_text())
    assert said["answers"][0] == {"number": 3, "label": "tabby", "score": 7.5, "probability": 0.62}
    assert said["runner_up"]["label"] == "Egyptian cat"
    assert [one["trust"]["verdict"] for one in said["maps"]] == ["supported", "no better than chance", "supported"]
    assert said["left_out"] == [{"method": "Integrated gradients", "reason": "no gradient"}]
    assert said["flip"]["covered"] == [[1, 2], [1, 3]]
    assert said["units"][0] == {"target": "layer4:7", "effect": 1.5}
    assert said["consensus"]["methods"] == ["Occlusion", "RISE"]
    assert said["sentences"] == list(found.sentences)
    opened = load_result(tmp_path / "a.json")
    assert isinstance(opened, Record)
    assert opened.records() == found.records()
    assert [row["method"] for row in found.records()] == [
        "Occlusion", "Grad-CAM", "RISE", "rather than the runner-up",
    ]  # fmt: skip
