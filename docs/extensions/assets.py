"""Writes the pictures that README and pages show in the repository: small copies of what the site is built with.

python docs/extensions/assets.py            # makes what is missing in build/ first

Those of the atlas and of the widget are photographs of pages, and stay as they are where no Chromium is installed.
"""

from __future__ import annotations

import io
from pathlib import Path

import digits_atlas
import drawings
import explorer_page
import gallery
from browsing import has_browser, photograph
from PIL import Image
from tiles import read_tiles

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
QUALITY = 70
TILES = {  # name of a tile: width in px
    "explain": 900,
    "occlusion": 560,
    "does-the-map-depend-on-the-answer": 560,
    "filters": 560,
    "maximize": 560,
    "top-images": 560,
    "embed": 560,
    "audit": 560,
}
WINDOW = (1240, 1000)  # px, through which the atlas is seen
EXPLORER = (1040, 860)
DRAWINGS = ("incremental", "field", "fields", "mean", "scan")


def write_assets() -> None:
    build = ROOT / "build"
    gallery.make_pictures(build / "gallery", read_tiles(gallery.PAGE.read_text(encoding="utf-8")))
    for name, width in TILES.items():
        with Image.open(build / "gallery" / f"{name}-light.webp") as picture:
            _write(picture, name, width)
    if has_browser():
        _photograph_pages(build)
    for name in DRAWINGS:
        with io.BytesIO(drawings.draw_one(name)) as png, Image.open(png) as picture:
            _write(picture, name, 900)


def _photograph_pages(build: Path) -> None:
    seen = build / "seen.png"
    digits_atlas.make_atlas(build / "atlas")
    depths = f"{(build / 'atlas' / 'site' / 'index.html').resolve().as_uri()}#/depths"
    for scheme in ("light", "dark"):
        photograph(depths, seen, scheme, WINDOW, until=".depths")
        with Image.open(seen) as picture:
            _write(picture, f"atlas-{scheme}", 900)
    explorer_page.write_page(build / "explorer.html")
    photograph((build / "explorer.html").resolve().as_uri(), seen, "light", EXPLORER, until="body[data-ready]")
    with Image.open(seen) as picture:
        _write(picture, "explore", 800)


def _write(picture: Image.Image, name: str, width: int) -> None:
    height = round(picture.height * width / picture.width)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.save(ASSETS / f"{name}.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    write_assets()
