"""Fills the pages that the build completes: the gallery with pictures, the first page with all others, drawings, and
puts an atlas beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tiles import Tile, read_tiles

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
GALLERY, DRAWINGS, ATLAS = (ROOT / "build" / name for name in ("gallery", "drawings", "atlas"))
_REST = re.compile(r"^@([\w/-]+)@$", re.M)  # stands on the first page for all pages of a folder that it does not name
_ASSET = re.compile(r"^!\[([^\]]+)\]\(\.\./assets/([\w-]+)\.webp\)$", re.M)
OPEN_ATLAS = "*Open the atlas of `lecture`.*"  # on a page of docs/; on the site a link
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```$", re.M | re.S)


def _make(app: Sphinx) -> None:
    """Make pictures and drawings in processes of their own: commands change the folder they run in."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for program, folder in (("drawings.py", DRAWINGS), ("gallery.py", GALLERY), ("digits_atlas.py", ATLAS)):
        if program == "drawings.py" or app.config.gallery_pictures:
            arguments = [sys.executable, str(here / program), str(folder)]
            subprocess.run(arguments, check=True, env=os.environ | {"PYTHONPATH": path})


def _place_atlas(app: Sphinx, error: Exception | None) -> None:
    """Copy the atlas into the built site, where the link in place of `OPEN_ATLAS` leads."""
    if error is None and app.config.gallery_pictures and app.builder.format == "html":
        shutil.copytree(ATLAS / "site", Path(app.outdir) / "atlas", dirs_exist_ok=True)


def _complete(app: Sphinx, docname: str, content: list[str]) -> None:
    page = content[0]
    if docname == "docs/gallery":
        page = lay_out_tiles(page)
    if docname == app.config.root_doc:
        page = _REST.sub(lambda found: _name_rest(found[1], page.split()), page)
    if docname.startswith("docs/"):
        page = _ASSET.sub(_show_on_both_grounds, page)
        if app.config.gallery_pictures:
            page = page.replace(OPEN_ATLAS, '<a href="../atlas/index.html">Open the atlas of <code>lecture</code></a>.')
        page = _DIAGRAM.sub(_show_pictures(DRAWINGS, "call", "The life of a call"), page)
    content[0] = page


def _show_on_both_grounds(found: re.Match[str]) -> str:
    """What the build has made in place of the small copy that the repository keeps of it."""
    name = found[2].removesuffix("-light")
    made = (_show_pictures(folder, name, found[1]) for folder in (GALLERY, DRAWINGS, ROOT / "assets"))
    return next((markup for markup in made if markup), found[0])


def _name_rest(folder: str, named: list[str]) -> str:
    """The pages of a folder that the first page does not name, a line each."""
    pages = (path.relative_to(ROOT / "docs").with_suffix("") for path in sorted((ROOT / folder).glob("*.md")))
    return "\n".join(str(page) for page in pages if str(page) not in (*named, "index"))


def lay_out_tiles(page: str) -> str:
    """The gallery's page with its tiles as cards, two beside each other where there is room."""
    return "".join(_lay_out_section(section) for section in re.split(r"^(?=## )", page, flags=re.M))


def _lay_out_section(section: str) -> str:
    tiles = read_tiles(section)
    if not tiles:
        return section
    introduction = section.partition("### ")[0]
    cards = "\n".join(_make_card(tile) for tile in tiles)
    return f"{introduction}::::{{container}} tiles\n\n{cards}\n::::\n\n"


def _make_card(tile: Tile) -> str:
    command = f"```shell\n{tile.command}\n```"
    said = [re.sub(r"^(Shows|Does not show)", r"**\1**", text) for text in (tile.shows, tile.hides)]
    parts = [f":::{{card}} {tile.title}\n:class-card: tile", command, _show(tile), *said]
    return "\n\n".join(parts) + "\n:::\n"


def _show(tile: Tile) -> str:
    """What the command has made, as markup."""
    said = GALLERY / f"{tile.name}.txt"
    if said.exists():
        return f"```text\n{said.read_text(encoding='utf-8').rstrip()}\n```"
    alt = " ".join(tile.shows.split())
    return _show_pictures(GALLERY, tile.name, alt) or _show_pictures(ROOT / "assets", tile.name, alt)


def _show_pictures(folder: Path, name: str, alt: str) -> str:
    """The pictures NAME-light and NAME-dark of a folder, each of which leads to itself in full size."""
    pictures = [(ground, path) for ground in ("light", "dark") for path in folder.glob(f"{name}-{ground}.*")]
    return "\n\n".join(
        f"```{{image}} /{path.relative_to(ROOT)}\n:class: only-{ground}\n:alt: {alt}\n"
        f":target: ../_images/{path.name}\n```"
        for ground, path in pictures
        if path.suffix in (".webp", ".svg")
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("gallery_pictures", True, "env", [bool])
    app.connect("builder-inited", _make)
    app.connect("source-read", _complete)
    app.connect("build-finished", _place_atlas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
