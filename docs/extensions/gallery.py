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
import warnings
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
        if tile.arguments[0] == "atlas":  # a website: `digits_atlas` makes it, and `assets` photographs it
            continue
        stamp = folder / f"{tile.name}.digest"
        digest = _digest(tile)
        if not stamp.exists() or stamp.read_text() != digest:
            _lay_out(work)
            _make(tile, work, folder)
            stamp.write_text(digest)


def _digest(tile: Tile) -> str:
    return hashlib.sha256((tile.command + digest_code()).encode()).hexdigest()


@cache
def digest_code(kinds: tuple[str, ...] = (".py", ".json", ".safetensors", ".png")) -> str:
    """A digest of all that the pictures depend on: vizcnn with its networks, the samples and this file."""
    found = hashlib.sha256()
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
        write_digits(work / "digits")
    if not (work / "stamped.pth").exists():
        write_digits(work / "stamped", 700)
        _stamp(work / "stamped" / "7")
        torch.save(_train(work / "stamped"), work / "stamped.pth")


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


def write_digits(folder: Path, count: int = 400) -> None:
    """Digits of scikit-learn, placed as those of MNIST are, in a folder for each class."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for i, (pixels, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((pixels.reshape(8, 8) * 255 / 16).astype(np.uint8))
        field = Image.new("L", (28, 28))
        field.paste(small.resize((20, 20), Image.Resampling.BICUBIC), (4, 4))
        field.save(folder / str(label) / f"{i:03}.png")


def _stamp(folder: Path) -> None:
    """Put the same small mark into a corner of all images of a folder."""
    mark = Image.fromarray(255 * np.array([[1, 1, 1, 0, 1], [1, 0, 1, 0, 1], [1] * 5, [1, 0, 0, 1, 0]], np.uint8))
    for file in folder.iterdir():
        with Image.open(file) as image:
            image.paste(mark, (2, 21))
            image.save(file)


def _train(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of `lecture` after two looks at the digits of a folder, instead of those that it has."""
    from vizcnn import load, open_photo

    files = sorted(folder.rglob("*.png"))
    labels = torch.tensor([int(file.parent.name) for file in files])
    images = torch.stack([torch.from_numpy(open_photo(file).pixels).permute(2, 0, 1) for file in files])  # (N, 1, H, W)
    untaught = load("lecture@initial")
    network, contract = untaught.network.train().requires_grad_(True), untaught.input
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(2):
        for chosen in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            said = network((images[chosen] - contract.mean[0]) / contract.std[0])
            torch.nn.functional.cross_entropy(said, labels[chosen]).backward()
            optimizer.step()
    return network.state_dict()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _make(tile: Tile, work: Path, folder: Path) -> None:
    name = tile.arguments[0]
    draws = name not in ("check", "scan")
    kept = f"{tile.name}/audit.npz" if name == "audit" else f"{tile.name}.npz"
    with _inside(work):
        said = _run([*tile.arguments, *(["-o", kept.removesuffix("/audit.npz"), "-q"] if draws else [])])
    if not draws:
        (folder / f"{tile.name}.txt").write_text(said, encoding="utf-8")
        return
    from vizcnn import load_result, use_style
    from vizcnn.errors import VizcnnWarning

    result = _hide_folder(load_result(work / kept), work)
    for ground, style in STYLES.items():
        with use_style(style), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "a .png picture holds page 1", VizcnnWarning)  # all that a tile shows
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
