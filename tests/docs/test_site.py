"""The site's pages: what they promise to be complete is complete, their commands and links exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path

import click
import digits_atlas
import docstrings
import making
import offline
import pytest
import sequence
import tiles
import torch
from support import ROOT

import vizcnn
from vizcnn import errors
from vizcnn.cli.main import main
from vizcnn.probing import registry
from vizcnn.scanning.layer_selection import select_layers

DOCS = ROOT / "docs"
OTHERS = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "vizcnn/zoo/README.md")
PAGES = [*DOCS.rglob("*.md"), *(ROOT / name for name in OTHERS)]
GALLERY = (DOCS / "gallery.md").read_text(encoding="utf-8")
TILES = tiles.read_tiles(GALLERY)
ERRORS = (DOCS / "errors.md").read_text(encoding="utf-8")
_LARGEST_ASSETS = 600_000  # bytes


@pytest.mark.parametrize(("page", "network"), [("README.md", "resnet18@random"), ("docs/gallery.md", "tiny")])
def test_pages_ask_an_index_for_layers_that_a_scan_keeps_by_itself(page: str, network: str) -> None:
    model = vizcnn.load(network)
    kept = select_layers(model, model.input.size, None)
    text = (ROOT / page).read_text(encoding="utf-8")
    asked = [line for line in re.findall(r"vizcnn [^`#\n]+", text) if re.search(r"--(?:index|crops) index", line)]
    assert asked
    for command in asked:
        assert {unit.partition(":")[0] for unit in re.findall(r"\S+:\d\S*", command)} <= set(kept), command


# the gallery


def test_the_gallery_has_a_tile_for_each_probe_of_ours() -> None:
    ours = {name for name in registry.list_names() if registry.get(name).__module__.startswith("vizcnn.")}
    assert ours - {tile.arguments[0] for tile in TILES} == set()


def test_every_heading_of_the_gallery_is_a_whole_tile_with_a_name_of_its_own() -> None:
    assert [tile.title for tile in TILES] == re.findall(r"^### (.+)$", GALLERY, re.M)
    assert len({tile.name for tile in TILES}) == len(TILES)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
def test_the_command_of_a_tile_is_one_that_the_program_takes(tile: tiles.Tile) -> None:
    name, *arguments = tile.arguments
    command = main.get_command(click.Context(main), name)
    assert command
    command.make_context(name, arguments)  # raises UsageError for what it does not take


def test_tiles_become_cards_that_keep_all_their_words() -> None:
    page = making.lay_out_tiles(GALLERY)
    for tile in TILES:
        assert f":::{{card}} {tile.title}" in page
        assert tile.command in page
        assert tile.hides.removeprefix("Does not show") in page
    assert page.count("::::{container} tiles") == len(re.findall("^## ", GALLERY, re.M))


def test_the_atlas_has_a_tile_whose_pictures_the_repository_keeps_and_a_link_to_the_whole() -> None:
    """No browser photographs it while the site is built."""
    (tile,) = (tile for tile in TILES if tile.arguments[0] == "atlas")
    shown = making.lay_out_tiles(GALLERY).partition(tile.title)[2].partition(":::\n")[0]
    for ground in ("light", "dark"):
        assert f"/assets/atlas-{ground}.webp" in shown
        assert (ROOT / "assets" / f"atlas-{ground}.webp").exists()
    assert making.OPEN_ATLAS in (DOCS / "atlas.md").read_text(encoding="utf-8")


def test_the_licence_of_the_digits_is_named_where_they_are_shown() -> None:
    for text in (digits_atlas.DIGITS, (DOCS / "atlas.md").read_text(encoding="utf-8")):
        assert "Alpaydin" in text
        assert "CC BY 4.0" in text


# errors


def _classes() -> set[str]:
    kinds = (errors.VizcnnError, errors.VizcnnWarning, errors.Interrupted)
    return {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, kinds)}


def _sections() -> dict[str, str]:
    _, *sections = re.split(r"^## (\w+)\n", ERRORS, flags=re.M)
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_the_page_of_errors_has_every_class_of_the_tree() -> None:
    assert set(_sections()) == _classes()


@pytest.mark.parametrize("name", sorted(_classes() - {"VizcnnError"}))
def test_the_example_of_an_error_raises_it_with_the_message_on_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = _sections()[name]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    (said,) = re.findall(r"^```text\n(.*?)^```$", section, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    warnings.simplefilter("error")  # as pytest does too
    with pytest.raises(getattr(errors, name)) as caught:
        exec(f"import torch\nimport vizcnn\nfrom torch import nn\n{code}", {"__name__": "example"})
    pattern = re.escape(" ".join(said.split())).replace(re.escape("..."), ".+")
    assert re.fullmatch(pattern, " ".join(str(caught.value).split()))
    assert type(caught.value).__name__ == name


@pytest.mark.parametrize("name", sorted(_classes() - {"VizcnnError"}))
def test_the_page_names_the_built_in_error_that_it_is_too(name: str) -> None:
    said = re.search(r"Also\s+caught\s+as\s+`(\w+)`|It is a `(KeyboardInterrupt)`", _sections()[name])
    assert said
    bases = [base.__name__ for base in getattr(errors, name).__mro__[1:]]
    assert (said[1] or said[2]) in bases


# the API


def test_the_api_has_every_public_name() -> None:
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    found = re.findall(r"^\.\. auto\w+:: (\w+)$", pages, re.M)
    assert sorted(found) == sorted(vizcnn.__all__)


def test_members_that_the_api_names_exist_and_have_a_docstring() -> None:
    for page in (DOCS / "api").glob("*.md"):
        for name, members in re.findall(r"^\.\. autoclass:: (\w+)\n +:members: (.+)$", page.read_text(), re.M):
            for member in members.split(", "):
                assert inspect.getdoc(getattr(getattr(vizcnn, name), member)), f"{name}.{member}"


def test_docstrings_are_turned_into_lists_examples_and_formulas() -> None:
    text = """First line: a sentence.

    x: float64 (P,), of |pixels|
        and more of it.
    names: of the `lines`, such as NAME@random.
    The rest is a sentence.

        S(x) = sum of f_i

    .png    the picture
    .npz    the numbers

        >>> 1 + 1
        2

    Options:
    window: int or None = None
        Side. [px]"""
    made = docstrings.format_docstring(inspect.cleandoc(text).splitlines())
    assert "* **x**: float64 (P,), of \\|pixels\\|" in made
    assert "* **names**: of the `lines`, such as NAME\\@random." in made
    assert "The rest is a sentence." in made
    assert made.index("::") < made.index("    S(x) = sum of f_i")
    assert "* **window** (int or None, by default ``None``)" in made
    assert "    .png    the picture" in made
    assert "First line: a sentence." in made


# pages


def _slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http:", "https:")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in _slugs(target), link


def test_the_first_page_names_only_pages_that_exist() -> None:
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.M | re.S):
        for line in block.splitlines():
            entry = re.sub(r".*<(.+)>", r"\1", line.strip())
            if entry and entry != "self" and not entry.startswith((":", "@", "/notebooks")):
                assert (DOCS / f"{entry}.md").exists(), entry


def test_pictures_of_the_repository_stay_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "assets").iterdir()) < _LARGEST_ASSETS


def test_the_sequence_diagram_of_the_architecture_can_be_drawn_whole() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    diagram = sequence.read(page)
    arrows = re.findall(r"^ +\w+-?->>\w+: ", page, re.M)
    assert len([line for line in diagram.lines if line.kind in ("message", "answer")]) == len(arrows)
    assert {line.start for line in diagram.lines if line.start} <= set(diagram.participants)
    with pytest.raises(ValueError, match="cannot be drawn: loop"):
        sequence.read("```mermaid\nsequenceDiagram\n    loop each\n```\n")


def test_a_page_that_loads_from_outside_is_found_and_one_that_links_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text('<a href="https://example.org">a</a><img src="_images/a.webp">')
    assert not [*offline.find_loaded(tmp_path)]
    for i, loaded in enumerate(
        (
            '<script async src="https://example.org/x.js"></script>',
            '<link rel="stylesheet" href="//example.org/x.css">',
            '<img alt="" src="http://example.org/x.png">',
            "<style>@import 'https://example.org/x.css';</style>",
            "<style>a { background: url(https://example.org/x.png) }</style>",
        )
    ):
        (tmp_path / f"{i}.html").write_text(loaded)
        assert [path.name for path, _ in offline.find_loaded(tmp_path)].count(f"{i}.html") == 1, loaded


def test_the_extra_installs_what_the_site_is_built_with() -> None:
    """Names of the extensions are those of packages that the extra and the pins name."""
    pins = (ROOT / "constraints.txt").read_text()
    for package in ("sphinx", "myst-nb", "furo", "sphinx-design", "sphinx-copybutton"):
        assert re.search(rf"^{package}==", pins, re.M), package


def test_reading_pages_needs_no_sphinx() -> None:
    code = "import sys, docstrings, making, offline, sequence, tiles; assert 'sphinx' not in sys.modules"
    path = str(DOCS / "extensions")
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"], check=True)
