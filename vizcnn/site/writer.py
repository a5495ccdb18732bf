"""Records, written as a website: one page, its scripts, and data files that a page loads when it needs them.

It opens from the folder, where a browser lets a page load scripts and pictures but not fetch: so each data file is a
script that hands over one value. The names of all files are numbers of ours; no label and no name of a file of the data
set becomes a path or markup.

    index.html atlas.css script/*.js   the same for each network but for the title and the small print
    atlas.json                         what the atlas was made from, for programs
    data/network.js                    the overview, and all names
    data/images.js data/N<j>.js        label and answer of each image; names of the files of images 1024 j ...
    data/depths.js                     units that stand for each depth
    data/L<i>.js data/P<i>.js          the wall of layer i; the best crop of each unit
    data/U<i>-<j>.js                   the pages of its units 64 j ... 64 j + 63
    data/B<i>-<j>.js data/Q<i>.js      of a network to compare with: the same units, and their best crops
    data/changes.js                    how the two networks differ
    data/C<j>.js                       the pages of the classes 64 j ... 64 j + 63
    data/I<n>.js                       the page of image n
    data/W<i>.js data/A<i>-<n>.js      by hand: the weights of layer i, and what it reads and says for image n
    unit/<i>-<k>.webp unit/class-<c>.webp unit/other-<i>-<k>.webp   optimised pictures
    photo/<n>.webp                     what the network sees of an image
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vizcnn.errors import OutputError
from vizcnn.progress import bar
from vizcnn.site.comparison import Beside, Compared
from vizcnn.site.depths import choose_layers, choose_units, enter_depth
from vizcnn.site.entries import (
    enter_beside,
    enter_class,
    enter_comparison,
    enter_crop,
    enter_edges,
    enter_image,
    enter_images,
    enter_network,
    enter_origin,
    enter_reading,
    enter_unit,
    enter_wall,
    enter_weights,
)
from vizcnn.site.folder import PAGE, finish_folder, prepare_folder
from vizcnn.site.packing import clean, encode_webp, pack, to_script
from vizcnn.site.records import Floats, Missing, Picture, Pixels, Records, Unit

CHUNK = 64
"""How many units or classes a file has."""

NAMES = 1024
"""How many names of files of the data set a file has."""

_HERE = Path(__file__).parent
_SCRIPTS = (  # in the order in which they are read: each uses those before it
    "data", "elements", "words", "places", "pictures", "charts", "notes", "overlay", "overview", "wall", "unit",
    "depths", "compare", "classes", "images", "hand", "search", "keys", "start",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What a site takes: bytes and files of each kind."""

    folder: Path
    bytes: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """All bytes."""
        return self.bytes.total()


def write_site(
    records: Records,
    folder: str | Path,
    *,
    compared: Compared | None = None,
    dataset_images: bool = True,
    progress: bool | None = None,
) -> Written:
    """Write the atlas of a network into a folder, in place of an earlier one.

    compared: what it says of another network beside this one.
    dataset_images: False leaves out every pixel, map, activation and name of a file of the data set; numbers of images,
    labels and optimised pictures stay.
    progress: whether a bar may appear; by default yes.
    Raises ParameterError for a folder that holds something else, OutputError where it cannot be written."""
    folder = Path(folder)
    prepare_folder(folder)
    site = _Site(records, compared, Written(folder), dataset_images)
    try:
        site.write(shown=progress is not False)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write to {folder}: {error.strerror}. The atlas is not finished") from error
    return site.written


class _Site:
    """The parts of a site, one after the other, and which images they show."""

    def __init__(self, records: Records, compared: Compared | None, written: Written, dataset_images: bool) -> None:
        self.records, self.compared, self.written, self.photos = records, compared, written, dataset_images
        self.network = records.network
        self.shown: set[int] = set()  # images of which a photograph is stored
        self.pages: list[int] = []  # images with a page of their own
        self.depths: list[Any] = []  # layers on the page of all depths
        self.hand: dict[int, list[int]] = {}  # layers that can be computed by hand, with the images

    def write(self, *, shown: bool) -> None:
        layers = self.network.layers
        classes = self._write_classes()
        pictured: list[bool | str] = []
        with bar(sum(layer.shape[0] for layer in layers), "atlas", "unit", shown=shown) as progress:
            for i, layer in enumerate(layers):
                pictured.append(classes if layer.is_output else self._write_layer(i))
                progress.update(layer.shape[0])
        self._write_data("depths", self.depths, "overview")
        self._write_comparison(shown=shown)
        self._write_images()
        for i in range(len(layers)):
            self._write_by_hand(i)
        self._write_photographs()
        about = {
            **enter_network(self.network, pictured),
            "classPictures": classes,
            "photos": self.photos,
            "compare": self._introduce_comparison(),
            "pages": self.pages,
            "hand": [[i, images] for i, images in self.hand.items()],
            "chunk": CHUNK,
            "names": NAMES,
        }
        self._write_data("network", about, "overview")
        self._write_page()

    def _write_layer(self, i: int) -> bool | str:
        """A wall and the pages of its units; says which of these have a picture."""
        layer, wall = self.network.layers[i], self.records.wall(i)
        standing: dict[int, Unit] = {}
        faces: list[Any] = []
        kernels: list[Floats | None] = []
        pictured: list[bool] = []
        for j, units in enumerate(_split(self.records.units(i), CHUNK)):
            edges: list[Floats] = []
            rows = [enter_unit(unit, edges) for unit in units]
            self._write_data(f"U{i}-{j}", {"edges": [enter_edges(e) for e in edges], "units": rows}, "pages of units")
            standing |= {k: unit for k, unit in enumerate(units, len(pictured)) if k in choose_units(layer)}
            for unit in units:
                pictured.append(self._write_picture(f"{i}-{len(pictured)}", unit.picture))
                faces.append(enter_crop(unit.crops[0]) if unit.crops else None)
                kernels.append(unit.kernel)
                self.shown.update(crop.image for crop in unit.crops)
        self._write_data(f"L{i}", enter_wall(layer, wall, kernels), "walls")
        if self.photos:
            self._write_data(f"P{i}", faces, "walls")
        if i in choose_layers(self.network.layers):
            self.depths.append(enter_depth(i, layer, standing, wall, photos=self.photos))
        return _summarize(pictured)

    def _introduce_comparison(self) -> dict[str, Any] | None:
        """What every page knows of another network: names, and which layers can be compared."""
        if self.compared is None:
            return None
        both = self.compared.comparison
        return {"own": clean(both.own), "other": clean(both.other), "same": both.is_same, "layers": [*both.layers]}

    def _write_comparison(self, *, shown: bool) -> None:
        if self.compared is None:
            return
        both, pictured = self.compared.comparison, dict[int, bool | str]()
        units = sum(self.network.layers[i].shape[0] for i in both.layers)
        with bar(units, "comparison", "unit", shown=shown) as progress:
            for i in both.layers:
                if not self.network.layers[i].is_output:
                    pictured[i] = self._write_beside(i, self.compared.units(i))
                progress.update(self.network.layers[i].shape[0])
        self._write_data("changes", enter_comparison(both, pictured), "comparison")
        if not isinstance(both.answers, Missing):
            self.shown.update(n for n, _ in both.answers.gained_shown + both.answers.lost_shown)

    def _write_beside(self, i: int, units: Iterable[Beside]) -> bool | str:
        """The other network's units of a layer; says which of these have a picture."""
        faces: list[Any] = []
        pictured: list[bool] = []
        for j, some in enumerate(_split(units, CHUNK)):
            self._write_data(f"B{i}-{j}", [enter_beside(unit) for unit in some], "comparison")
            for unit in some:
                pictured.append(self._write_picture(f"other-{i}-{len(pictured)}", unit.picture))
                faces.append(enter_crop(unit.crops[0]) if unit.crops else None)
                self.shown.update(crop.image for crop in unit.crops)
        if self.photos:
            self._write_data(f"Q{i}", faces, "comparison")
        return _summarize(pictured)

    def _write_classes(self) -> bool | str:
        pictured: list[bool] = []
        for j, pages in enumerate(_split(self.records.classes(), CHUNK)):
            self._write_data(f"C{j}", [enter_class(page) for page in pages], "classes")
            for page in pages:
                pictured.append(self._write_picture(f"class-{len(pictured)}", page.picture))
                self.shown.update(page.examples)
        return _summarize(pictured)

    def _write_images(self) -> None:
        images = self.records.images
        self._write_data("images", enter_images(images), "images")
        if not self.photos:
            return
        for j, names in enumerate(_split(images.names, NAMES)):
            self._write_data(f"N{j}", [clean(name) for name in names], "images")
        for page in self.records.image_pages():
            self.pages.append(page.image)
            self._write_data(f"I{page.image}", enter_image(page), "images")
        self.shown.update(self.pages)

    def _write_by_hand(self, i: int) -> None:
        """The numbers of a layer; its activations are those of images, so that none are left without images."""
        hand = self.records.by_hand(i) if self.photos else Missing("Images are left out.")
        if isinstance(hand, Missing):
            return
        self._write_data(f"W{i}", enter_weights(hand), "weights by hand")
        for reading in hand.readings:
            self._write_data(f"A{i}-{reading.image}", enter_reading(reading), "activations by hand")
        self.hand[i] = [reading.image for reading in hand.readings]
        self.shown.update(self.hand[i])

    def _write_photographs(self) -> None:
        for n in sorted(self.shown) if self.photos else ():
            self._write_webp(f"photo/{n}", self.records.photograph(n), "photographs")

    def _write_picture(self, name: str, picture: Picture | Missing) -> bool:
        if isinstance(picture, Missing):
            return False
        self._write_webp(f"unit/{name}", picture.pixels, "optimised pictures")
        return True

    def _write_page(self) -> None:
        """The scripts, the stylesheet and, when all else is there, the page."""
        for name in _SCRIPTS:
            self._write_file(f"script/{name}.js", (_HERE / "static" / f"{name}.js").read_bytes(), "page")
        self._write_file("atlas.css", (_HERE / "static" / "atlas.css").read_bytes(), "page")
        environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        origin = enter_origin(self.network.origin)
        text = environment.get_template("index.html").render(
            title=clean(self.network.title), origin=origin, scripts=_SCRIPTS, photos=self.photos
        )
        counts = {"units": sum(layer.shape[0] for layer in self.network.layers), "dataset_images": self.photos}
        self._write_file(PAGE, text.encode(), "page")
        finish_folder(self.written.folder, origin, counts)

    def _write_data(self, key: str, value: Any, kind: str) -> None:
        self._write_file(f"data/{key}.js", to_script(key, value).encode("ascii"), kind)

    def _write_webp(self, name: str, pixels: Pixels, kind: str) -> None:
        self._write_file(f"{name}.webp", encode_webp(pixels), kind)

    def _write_file(self, name: str, content: bytes, kind: str) -> None:
        (self.written.folder / name).write_bytes(content)
        self.written.bytes[kind] += len(content)
        self.written.files[kind] += 1


def _split(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(items)
    for first in rest:
        yield list(chain((first,), islice(rest, size - 1)))


def _summarize(flags: list[bool]) -> bool | str:
    """All, none, or a bit for each in base64, the first unit's highest."""
    return flags[0] if len(set(flags)) == 1 else pack(np.packbits(flags), np.uint8) if flags else False
