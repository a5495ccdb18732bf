"""Makes the pictures of docs/gallery.md by running the commands that stand on it.

    python docs/extensions/gallery.py build/gallery

Each command runs once, in a folder with the sample images; its result is then drawn on a light and on a dark ground. A
picture is kept for as long as neither its command nor vizcnn changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiles import Tile, read_tiles

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gallery.md"
STYLES = {"light": "screen", "dark": "dark"}
WIDTH = 1400  # px; wider pictures are made smaller
QUALITY = 82  # of WebP: texts stay sharp


def make_pictures(folder: Path, tiles: list[Tile]) -> None:
    """Run the commands of all tiles whose pictures are missing or of another state of the code. The files of a tile are
    `NAME-light.webp` and `NAME-dark.webp`, or `NAME.txt` where the command answers in words."""
    torch.set_num_threads(1)  # another number can change last digits, which gradient ascent makes larger with each step
    folder.mkdir(parents=True, exist_ok=True)
    work = (folder / "work").resolve()
    for tile in tiles:
        stamp = folder / f"{tile.name}.digest"
        digest = _digest(tile)
        if not stamp.exists() or stamp.read_text() != digest:
            _lay_out(work)
            _make(tile, work, folder)
            stamp.write_text(digest)


def _digest(tile: Tile) -> str:
    return hashlib.sha256((tile.command + _digest_code()).encode()).hexdigest()


@cache
def _digest_code() -> str:
    """A digest of all that the pictures depend on: vizcnn with its networks, the samples and this file."""
    found = hashlib.sha256()
    kinds = (".py", ".json", ".safetensors", ".png")
    files = [path for part in ("vizcnn", "assets") for path in (ROOT / part).rglob("*") if path.suffix in kinds]
    for path in sorted([*files, Path(__file__)]):
        found.update(path.read_bytes())
    return found.hexdigest()


def _lay_out(work: Path) -> None:
    """The folder in which the commands run: the sample images, pieces of sample photographs, and digits."""
    if not (work / "assets").exists():
        (work / "assets").mkdir(parents=True)
        for path in [ROOT / "assets" / "street.png", *(ROOT / "assets").glob("digit-*.png")]:
            (work / "assets" / path.name).write_bytes(path.read_bytes())
    if not (work / "pieces").exists():
        _cut_pieces(work / "pieces")
    if not (work / "digits").exists():
        _write_digits(work / "digits")


def _cut_pieces(folder: Path, count: int = 40, side: int = 96) -> None:
    """Pieces of three sample photographs, in a folder for each."""
    from vizcnn import open_photo

    for name in ("china", "flower", "grace_hopper"):
        (folder / name).mkdir(parents=True)
        pixels = (open_photo(f"sample:{name}").pixels * 255).round().astype(np.uint8)  # (H, W, 3)
        random = np.random.default_rng(0)
        for i in range(count):
            top, left = (int(random.integers(0, length - side)) for length in pixels.shape[:2])
            Image.fromarray(pixels[top : top + side, left : left + side]).save(folder / name / f"{i:02}.png")


def _write_digits(folder: Path, count: int = 400) -> None:
    """Digits of scikit-learn, placed as those of MNIST are, in a folder for each class."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for i, (pixels, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((pixels.reshape(8, 8) * 255 / 16).astype(np.uint8))
        field = Image.new("L", (28, 28))
        field.paste(small.resize((20, 20), Image.Resampling.BICUBIC), (4, 4))
        field.save(folder / str(label) / f"{i:03}.png")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _make(tile: Tile, work: Path, folder: Path) -> None:
    kept = f"{tile.name}.npz"
    draws = tile.arguments[0] not in ("check", "scan")
    with _inside(work):
        said = _run([*tile.arguments, *(["-o", kept, "-q"] if draws else [])])
    if not draws:
        (folder / f"{tile.name}.txt").write_text(said, encoding="utf-8")
        return
    from vizcnn import load_result, use_style

    result = _hide_folder(load_result(work / kept), work)
    for ground, style in STYLES.items():
        with use_style(style):
            result.save(work / "drawn.png")
        _shrink(work / "drawn.png", folder / f"{tile.name}-{ground}.webp")


def _hide_folder(result: Any, work: Path) -> Any:
    """The result with the places of data sets relative to the folder: small print must be the same on every machine."""
    details = {
        key: os.path.relpath(value, work) if isinstance(value, str) and value.startswith(str(work)) else value
        for key, value in result.provenance.details.items()
    }
    return replace(result, provenance=replace(result.provenance, details=details))


def _run(arguments: list[str]) -> str:
    """What the command prints on standard output. Raises RuntimeError where it fails."""
    from vizcnn.cli.main import main

    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main(arguments, prog_name="vizcnn")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"vizcnn {' '.join(arguments)} ended with {end.code}") from end
    return out.getvalue()


def _shrink(drawn: Path, to: Path) -> None:
    with Image.open(drawn) as image:
        picture = image.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.save(to, quality=QUALITY, method=6)


if __name__ == "__main__":
    make_pictures(Path(sys.argv[1]), read_tiles(PAGE.read_text(encoding="utf-8")))
