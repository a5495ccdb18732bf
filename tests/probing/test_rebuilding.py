"""A result says enough of its probe to make it again, with any options, also after a way through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import ORIGIN

import vizcnn
from vizcnn.ascent import RECIPES, Fourier, Maco, Penalty, Pixels, Recipe, Repair, Transforms
from vizcnn.errors import ParameterError, ProbeNotFound, ResultError, VizcnnWarning
from vizcnn.probing import registry
from vizcnn.probing.options import Reader, write
from vizcnn.probing.probe import Option, Probe, list_options

OURS = [name for name in registry.list_names() if registry.get(name).__module__.startswith("vizcnn.")]


@dataclass(frozen=True)
class Mirrored(Penalty):
    """A part of a recipe that is the person's own."""

    mirror: float = 0.01


OWN = Recipe(
    "own", Pixels(0.1), Transforms(jitter=0.2), Mirrored(tv=1.0, mirror=0.5), Repair(blur=0.7), "ascent", 0.3, 7
)

OPTIONS: dict[str, dict[str, Any]] = {
    "arithmetic": {},
    "cam": {"method": "layer-cam", "layer": "layer2", "batch": 3},
    "deconvnet": {},
    "dream": {"octaves": 2, "scale": 1.7, "steps": 3, "rate": 0.1, "jitter": 0.0, "size": 40, "frames": 5},
    "embed": {"layer": "f", "method": "tsne", "neighbours": 2, "perplexity": 3.5, "labels": "a", "features": True},
    "feature-maps": {"layers": ("layer1", "layer2:3"), "channels": 5},
    "filters": {
        "layer": "conv1", "channel": 1, "scale": "each", "sort": "hue", "compare": "simple@initial",
        "difference": True, "most": 4,
    },
    "invert": {"layers": ("layer1",), "alpha": 0.0, "tv": 2.0, "steps": 9, "batch": 2, "frames": 3},
    "layers": {},
    "maximize": {
        "preset": OWN, "steps": 3, "rate": 0.5, "l1": 0.0, "l2": 1.5, "tv": 0.25, "sign": "both", "copies": 2,
        "diversity": 0.5, "size": 33, "crops": "index", "frames": 4, "batch": 2, "precision": "bfloat16",
    },
    "occlusion": {"window": (8, 9), "stride": 3, "fill": "#7f7f7f", "batch": 5, "engine": "plain"},
    "rise": {"masks": 10, "grid": 3, "keep": 0.25, "fill": "mean", "batch": 5},
    "saliency": {
        "method": "smoothgrad", "sign": "signed", "samples": 3, "noise": 0.0, "steps": 5, "baseline": "blur",
        "batch": 2,
    },
    "style": {
        "like": "sample:flower", "content_layer": "a", "style_layers": ("b", "c"), "content_weight": 0.0,
        "style_weight": 2.0, "tv": 0.1, "optimiser": "adam", "steps": 2, "rate": 0.3, "size": 32, "frames": 2,
    },
    "top-images": {"count": 3, "rank": "mean", "beside": ("filter", "maximize"), "labels": "labels.csv"},
}  # fmt: skip
"""Every option of every probe of ours at another value than its default, but `like` of maximize, for another recipe."""


def through_json(probe: Probe[Any]) -> Any:
    """What is read of the manifest of a result of this probe."""
    result = vizcnn.Table(replace(ORIGIN, probe=probe.name(), options=probe.write_options()), ("a",), ((1,),), ())
    return json.loads(json.dumps(result.manifest()))


@pytest.mark.parametrize("name", OURS)
def test_a_probe_with_other_options_is_made_again_from_its_manifest(name: str) -> None:
    kind = registry.get(name)
    probe, usual = kind(**OPTIONS[name]), kind()
    for option in list_options(kind):
        if (name, option.name) != ("maximize", "like"):
            assert getattr(probe, option.name) != getattr(usual, option.name), "the table lacks an option"
    for each in (probe, usual):
        again = vizcnn.probe_from(through_json(each))
        assert again == each
        assert {**vars(again)} == {**vars(each)}
        assert [type(value) for value in vars(again).values()] == [type(value) for value in vars(each).values()]


@pytest.mark.parametrize("preset", [*RECIPES, replace(RECIPES["maco"], parametrization=Maco("tiny"))])
def test_every_recipe_reads_back(preset: str | Recipe) -> None:
    probe = vizcnn.Maximize(preset=preset, like="folder" if preset == "maco" else None)
    assert vizcnn.probe_from(through_json(probe)) == probe


def values_of(option: Option) -> st.SearchStrategy[Any]:
    """Any value of an option."""
    fixed: dict[str, st.SearchStrategy[Any]] = {
        "fill": st.sampled_from(["blur", "mean", "model", "#123456"]),
        "baseline": st.sampled_from(["blur", "black"]),
        "layers": st.none() | st.lists(st.sampled_from(["a", "b.c:3"]), min_size=1).map(tuple),
        "beside": st.none() | st.sampled_from([(), ("filter",), ("maximize", "filter")]),
    }
    return fixed[option.name] if option.name in fixed else values_of_type(option.type, option)


def values_of_type(wanted: Any, option: Option) -> st.SearchStrategy[Any]:
    low, high, args = option.param.min, option.param.max, get_args(wanted)
    if get_origin(wanted) is Literal:
        return st.sampled_from(args)
    if get_origin(wanted) is tuple:
        inside = values_of_type(args[0], option)
        return st.lists(inside, max_size=4).map(tuple) if args[-1] is Ellipsis else st.tuples(*[inside] * len(args))
    if args:
        return st.one_of([values_of_type(arg, option) for arg in args])
    plain: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(int(low or 0), int(high or 10**9)),
        float: st.floats(low, high, allow_nan=False) | st.integers(int(low or 0) + 1, int(high or 10**6) + 1),
        str: st.text(),
        Recipe: st.builds(
            Recipe,
            st.text(),
            st.builds(Fourier, st.floats(allow_nan=False), st.booleans()) | st.builds(Maco, st.text()),
            st.builds(Transforms, jitter=st.floats(0, 1), rotate=st.integers(0, 9)),
            st.builds(Penalty, l1=st.floats(0, 1)) | st.builds(Mirrored, mirror=st.floats(0, 1)),
            steps=st.integers(1),
        ),
    }
    return plain[wanted]


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_probe_of_any_options_is_made_again(name: str, data: st.DataObject) -> None:
    kind = registry.get(name)
    options = {option.name: data.draw(values_of(option), option.name) for option in list_options(kind)}
    try:
        probe = kind(**options)
    except ParameterError:
        assume(False)
    assert vizcnn.probe_from(through_json(probe)) == probe


# --- where the probe is read from -------------------------------------------------------------------------------------


def test_a_probe_is_made_from_whatever_a_result_is_kept_in(tmp_path: Path) -> None:
    probe = vizcnn.Maximize(preset=OWN, steps=2, frames=2)
    result = probe(vizcnn.load("lecture"), target=1, progress=False)
    files = [
        result.save(tmp_path / f"a{end}") for end in (".npz", ".safetensors", ".json", ".png", ".jpg", ".gif", ".pdf")
    ]
    sources = [result, result.provenance, result.manifest(), result.manifest()["provenance"], *files, str(files[0])]
    for source in sources:
        assert vizcnn.probe_from(source) == probe


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({}, ParameterError, "with which `options`, at its top or under `provenance`, got an empty one"),
        ({"provenance": 3}, ParameterError, "got an empty one"),
        ({"images": []}, ParameterError, "got 'images'. Take result.manifest()"),
        ({"probe": "cam", "options": None}, ParameterError, "with which `options`"),
        (3, ParameterError, "a result, its manifest or a file of it, got int"),
        ("a.png", ParameterError, "a.png is no picture that vizcnn has saved, or there is none"),
        ("a.json", ResultError, "a.json does not exist"),
        ("a.svg", ResultError, "results open from .npz"),
    ],
)
def test_what_is_no_manifest_is_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vizcnn.probe_from(source)


def test_a_probe_that_is_not_here_is_named_with_the_nearest_and_its_package() -> None:
    with pytest.raises(ProbeNotFound, match="no probe named 'oclusion' is here. Did you mean 'occlusion'?"):
        vizcnn.probe_from({"probe": "oclusion", "options": {}})
    with pytest.raises(ProbeNotFound, match="It is from vizcnn-two-probes 1.0: install that"):
        vizcnn.probe_from({"probe": "weight-norms", "options": {}, "plugin": "vizcnn-two-probes 1.0"})


# --- options that another version had ---------------------------------------------------------------------------------


def test_an_option_that_there_was_not_yet_gets_its_default_with_a_warning() -> None:
    manifest = through_json(vizcnn.Rise(masks=10))
    del manifest["provenance"]["options"]["fill"]
    with pytest.warns(VizcnnWarning, match="does not say fill of rise: the defaults of this version"):
        assert vizcnn.probe_from(manifest) == vizcnn.Rise(masks=10)


def test_so_does_a_part_of_a_recipe() -> None:
    manifest = through_json(vizcnn.Maximize(preset=OWN))
    del manifest["provenance"]["options"]["preset"]["penalty"]["mirror"]
    expected = replace(OWN, penalty=Mirrored(tv=1.0))
    with pytest.warns(VizcnnWarning, match="does not say preset.penalty.mirror of maximize"):
        assert vizcnn.probe_from(manifest) == vizcnn.Maximize(preset=expected)


def test_an_option_that_there_is_no_more_is_refused() -> None:
    manifest = {"probe": "rise", "options": {"mask": 10}, "version": "0.9"}
    with pytest.raises(
        ParameterError,
        match=r"of vizcnn 0.9, gives rise an option that there is not here: 'mask', 10. Did you mean 'masks'\? Take it",
    ):
        vizcnn.probe_from(manifest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": [1, 2, 3]}, "Occlusion: window must be int or .*, got (1, 2, 3)"),
        ({"fill": "plaid"}, "plaid"),
        (
            {"window": {"class": "subprocess:Popen", "args": "ls"}},
            "got the class subprocess:Popen",
        ),
    ],
)
def test_an_option_of_another_type_is_refused(options: dict[str, Any], message: str) -> None:
    usual = json.loads(json.dumps(vizcnn.Occlusion().write_options()))
    with pytest.raises(ParameterError, match=message.replace("(", r"\(").replace(")", r"\)")):
        vizcnn.probe_from({"probe": "occlusion", "options": {**usual, **options}})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"rate": "fast"}, "option preset cannot be made again: TypeError: "),
        ({"rates": 3}, "option preset has no 'rates' any more. Did you mean 'rate'? Make it anew: Maximize(...)"),
        ({"steps": 0}, "steps and rate must be positive"),
        ({"class": "nowhere:Recipe"}, "the class nowhere:Recipe, which no loaded module has. Import its module first"),
        ({"penalty": {"class": "vizcnn.ascent.recipe:Recipe"}}, "preset.penalty must be Penalty, got the class"),
        (
            {"parametrization": {"class": "vizcnn.ascent.regularizers:Penalty"}},
            "must be Parametrization",
        ),
    ],
)
def test_a_part_of_a_recipe_that_does_not_fit_is_named(part: dict[str, Any], message: str) -> None:
    manifest = through_json(vizcnn.Maximize(preset="lucid"))
    manifest["provenance"]["options"]["preset"] |= part
    with pytest.raises(ParameterError) as caught:
        vizcnn.probe_from(manifest)
    assert message in str(caught.value)


# --- probes of somebody else's, with options of any type --------------------------------------------------------------


class Colour(Enum):
    RED = "r"
    BLUE = "b"


@dataclass(frozen=True)
class Grid:
    sides: tuple[int, int] = (1, 1)
    colour: Colour = Colour.RED
    inner: Grid | None = None
    derived: int = field(init=False, default=3)


def add(a: float, b: float) -> float:
    return a + b


class Theirs(Probe[vizcnn.Table]):
    """A probe of somebody else's, with options of all types?"""

    needs_images = False

    folder: Path | str = vizcnn.param(Path("a"), "A folder.")
    colour: Colour = vizcnn.param(Colour.RED, "A colour.")
    grid: Grid = vizcnn.param(Grid(), "A grid.")
    nested: tuple[tuple[int, ...], ...] | None = vizcnn.param(None, "Tuples.")
    listed: list[Any] | None = vizcnn.param(None, "A list.")
    weights: Mapping[str, tuple[float, float]] | None = vizcnn.param(None, "Pairs by name.")
    anything: Any = vizcnn.param(None, "Anything.")
    combine: Callable[[float, float], float] = vizcnn.param(add, "A function.")
    either: Union[int, tuple[int, int], str] = vizcnn.param(1, "One of three.")  # noqa: UP007 - the older notation too

    def compute(self, subject: Any) -> vizcnn.Table:
        return vizcnn.Table(subject.provenance(), ("a",), ((1,),), ())


@pytest.mark.parametrize(
    "options",
    [
        {"folder": Path("b/c")},
        {"folder": "b/c"},
        {"colour": Colour.BLUE},
        {"grid": Grid((2, 3), Colour.BLUE, Grid((4, 5)))},
        {"nested": ((1, 2), (), (3,))},
        {"listed": [1, [2, "x"], None]},
        {"weights": {"a": (0.5, 1.0), "class ": (1.0, 2.0)}},
        {"anything": Grid((7, 8))},
        {"anything": {"a": (1, 2)}},
        {"anything": Colour.BLUE},
        {"either": (3, 4)},
        {"either": "3x4"},
        {"anything": float("inf")},
    ],
    ids=str,
)
def test_options_of_somebody_elses_probe_read_back(options: dict[str, Any], tmp_path: Path) -> None:
    probe = Theirs(**options)
    assert vizcnn.probe_from(through_json(probe)) == probe
    result = probe(vizcnn.load("lecture"))
    assert vizcnn.probe_from(result) == vizcnn.probe_from(result.save(tmp_path / "a.json")) == probe


def test_what_a_manifest_cannot_hold_is_named_when_the_probe_is_made_again() -> None:
    for value, said in ((max, "the builtin_function_or_method builtins.max"), (object(), "a builtins.object")):
        result = Theirs(anything=value)(vizcnn.load("lecture"))
        with pytest.raises(ParameterError) as caught:
            vizcnn.probe_from(result.manifest())
        assert str(caught.value) == (
            f"Theirs: option anything was {said}, and a manifest holds plain values alone. Make it anew: Theirs(...)"
        )
    manifest = through_json(Theirs(combine=lambda a, _: a))
    with pytest.raises(ParameterError, match="option combine was the function .*<lambda>, and a manifest"):
        vizcnn.probe_from(manifest)


def test_a_probe_is_found_under_the_name_that_it_gives_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may install the class `Theirs` as `other`, and `occlusion` may be what a notebook calls its own."""
    manifest = {"probe": "theirs", "options": {}}
    monkeypatch.setattr(registry, "list_names", lambda: ["other"])
    with pytest.warns(VizcnnWarning, match="does not say"):
        assert isinstance(vizcnn.probe_from(manifest), Theirs)


def test_a_text_that_the_option_reads_as_another_is_no_silent_change() -> None:
    class Growing(Probe[vizcnn.Table]):
        """Does each reading add a letter?"""

        word: str = vizcnn.param("", "A word.", parse=lambda text: text + "!")

    with pytest.raises(ParameterError, match="option word reads its own 'a!' as 'a!!'. Mend its parse"):
        vizcnn.probe_from(through_json(Growing(word="a")))


def test_reading_imports_nothing_that_a_manifest_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by way of a package whose names load on first use."""

    def load(name: str) -> Any:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(vizcnn, "__getattr__", load)
    with pytest.raises(ParameterError, match="which no loaded module has"):
        Reader().read({"class": "vizcnn:NoSuchName"}, Any, Theirs, "it")


# --- how a probe prints -----------------------------------------------------------------------------------------------


def test_a_probe_prints_as_the_call_that_makes_it() -> None:
    assert repr(vizcnn.Occlusion()) == str(vizcnn.Occlusion()) == "Occlusion()"
    assert repr(vizcnn.Occlusion(window=(4, 6), fill="mean")) == "Occlusion(window=(4, 6), fill='mean')"
    assert repr(vizcnn.Maximize(preset="lucid", steps=3)) == "Maximize(preset='lucid', steps=3)"
    assert repr(vizcnn.Maximize(preset="robust")) == "Maximize()"


@pytest.mark.parametrize("name", OURS)
def test_that_call_gives_an_equal_probe(name: str) -> None:
    kind = registry.get(name)
    probe = kind(**OPTIONS[name])
    names = {each.__name__: each for each in (kind, Recipe, Pixels, Transforms, Mirrored, Repair)}
    assert eval(repr(probe), names) == probe


def test_writing_a_value_leaves_out_addresses() -> None:
    assert write(object()) == write(object())
