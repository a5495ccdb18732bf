"""A page with every kind of picture at shapes that strain its layout, to be looked at; tests check its texts.

    python docs/layouts.py layouts/            # writes layouts/index.html with its pictures
    python docs/layouts.py layouts/ dark       # in another style

Photographs are samples, cut and enlarged; nothing but vizcnn's bundled networks is needed.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vizcnn
from vizcnn.results import STYLES

LONG = "a photograph of a naval officer in front of a flag, taken at the archive in nineteen eighty-four.jpg"
SCRIPTS = "фотография на память о встрече · φωτογραφία · լուսանկար.jpg"


@cache
def model(name: str = "tiny") -> vizcnn.Model:
    return vizcnn.load(name)


@cache
def photo(width: int, height: int, name: str = "photo.jpg", seed: int = 0) -> vizcnn.Photo:
    """A part of a sample, in the size that is asked for."""
    source = vizcnn.open_photo("sample:grace_hopper").pixels
    rows, columns = source.shape[:2]
    zoom = 1 + seed % 5 / 4  # so that many photographs differ
    side = min(rows / height, columns / width) / zoom
    top, left = (rows - side * height) * (seed % 3) / 2, (columns - side * width) * (seed % 7) / 6
    box = (left, top, left + side * width, top + side * height)
    image = Image.fromarray((source * 255).round().astype(np.uint8)).resize((width, height), box=box)
    return vizcnn.Photo(np.asarray(image), name)


LANDSCAPE, PORTRAIT, SQUARE, TINY, HUGE = (480, 300), (260, 480), (320, 320), (16, 16), (4000, 2600)


def many(count: int) -> list[vizcnn.Photo]:
    return [photo(*(LANDSCAPE, PORTRAIT, SQUARE)[i % 3], f"photo {i:02}.jpg", i) for i in range(count)]


def named() -> list[vizcnn.Photo]:
    return [photo(*LANDSCAPE, LONG), photo(*PORTRAIT, SCRIPTS, 1)]


THREE = ["military uniform", "academic gown", "bow tie"]
IMAGES: Mapping[str, Callable[[], Any]] = {
    "landscape": lambda: photo(*LANDSCAPE),
    "portrait": lambda: photo(*PORTRAIT),
    "square": lambda: photo(*SQUARE),
    "tiny": lambda: photo(*TINY),
    "huge": lambda: photo(*HUGE),
    "long names and other scripts": named,
    "six": lambda: many(6),
    "twenty": lambda: many(20),
}


def probe(made: vizcnn.Probe[Any], images: Callable[[], Any], target: Any = None, network: str = "tiny") -> Any:
    return made(model(network), images(), target, progress=False)


def of_network(made: vizcnn.Probe[Any], target: Any = None, network: str = "tiny") -> Any:
    return made(model(network), target=target, progress=False)


def _list_heatmaps() -> dict[str, Callable[[], Any]]:
    cam, saliency, occlusion = vizcnn.Cam(), vizcnn.Saliency(), vizcnn.Occlusion(stride=13)
    return {
        **{f"cam, {name}": partial(probe, cam, images) for name, images in IMAGES.items()},
        **{f"saliency, {name}": partial(probe, saliency, images) for name, images in IMAGES.items() if name != "six"},
        "saliency, three targets": partial(probe, saliency, IMAGES["portrait"], THREE),
        "occlusion, landscape": partial(probe, occlusion, IMAGES["landscape"]),
        "occlusion, huge, three targets": partial(probe, occlusion, IMAGES["huge"], THREE),
        "occlusion, six, three targets": partial(probe, occlusion, IMAGES["six"], THREE),
    }


def _list_grids() -> dict[str, Callable[[], Any]]:
    maps, deconvnet = vizcnn.FeatureMaps(), vizcnn.Deconvnet()
    few = ("landscape", "portrait", "tiny", "huge", "long names and other scripts", "six")
    return {
        "filters, 48 in colour": partial(of_network, vizcnn.Filters()),
        "filters, of one input channel": partial(of_network, vizcnn.Filters(layer="layer2.0.conv1", channel=0)),
        "filters, few and grey": partial(of_network, vizcnn.Filters(), network="simple"),
        "filters, before and after": partial(of_network, vizcnn.Filters(compare="simple@initial"), network="simple"),
        "filters, and the difference": partial(
            of_network, vizcnn.Filters(compare="simple@initial", difference=True), network="simple"
        ),
        **{f"feature maps, {name}": partial(probe, maps, IMAGES[name]) for name in few},
        **{f"deconvnet, {name}": partial(probe, deconvnet, IMAGES[name]) for name in few},
        "deconvnet, of a class": partial(probe, deconvnet, IMAGES["portrait"], "military uniform"),
        "maximize, one": partial(of_network, vizcnn.Maximize(steps=2), "school bus"),
        "maximize, seven": partial(of_network, vizcnn.Maximize(steps=2), "layer4:0-6"),
        "maximize, twenty-five": partial(of_network, vizcnn.Maximize(steps=1), "layer4:0-24"),
        "invert": partial(probe, vizcnn.Invert(steps=2, layers=("layer1", "layer2", "layer4")), IMAGES["landscape"]),
    }


def _list_units() -> dict[str, Callable[[], Any]]:
    units = {"tiny": "school bus", "huge": "layer2.0.conv2:17@0,8"}
    made = vizcnn.Arithmetic()
    return {
        **{f"arithmetic, {name}, {unit}": partial(probe, made, IMAGES[name], unit) for name, unit in units.items()},
        "arithmetic, long names and other scripts": partial(probe, made, lambda: named()[0]),
        "arithmetic, of a large kernel": partial(probe, made, IMAGES["square"], network="eleven"),
        "arithmetic, on paper": slide,
    }


def slide() -> Any:
    """A kernel that slides over an image of 6 x 6 px."""
    convolution = torch.nn.Conv2d(1, 1, 3, stride=2, bias=False)
    convolution.weight.data = torch.linspace(-1.2, 1.2, 9).view(1, 1, 3, 3)
    network = torch.nn.Sequential(convolution, torch.nn.ReLU())
    small = vizcnn.Model(network, size=6, channels=1, mean=[0], std=[0.1])
    return vizcnn.Arithmetic()(small, (torch.arange(36.0) * 7 % 10 / 10).view(1, 6, 6), "0:0@0,1", progress=False)


def _list_others() -> dict[str, Callable[[], Any]]:
    x = np.linspace(0, 100, 21)
    falling = np.stack([np.exp(-x / (20 + 15 * i)) for i in range(3)])
    deep, first, classes = (vizcnn.TopImages(count=count) for count in (9, 4, 2))
    return {
        "top images, of a deep layer": partial(probe, deep, lambda: many(20), "layer4:0-2"),
        "top images, of the first layer": partial(probe, first, lambda: [*named(), *many(6)], "conv1:0-3"),
        "top images, of a class": partial(probe, classes, lambda: many(8), "school bus"),
        "embedding": partial(probe, vizcnn.Embed(), lambda: many(24)),
        "layers": partial(of_network, vizcnn.Layers()),
        "curve": lambda: vizcnn.Curve(
            vizcnn.Layers()(model()).provenance,
            x,
            falling,
            ("tabby", LONG, SCRIPTS),
            "share of the image that is deleted",
            "probability",
            "%",
            title="How fast the answer falls when what matters most goes first, for three classes of one photograph",
        ),
        "dream": partial(probe, vizcnn.Dream(steps=1, octaves=1, size=160), lambda: many(3)),
        "style": partial(
            probe,
            vizcnn.Style(steps=1, size=96, content_layer="layer2", style_layers=("layer1", "layer2")),
            lambda: photo(*PORTRAIT, LONG),
        ),
    }


CASES: Mapping[str, Callable[[], Any]] = {**_list_heatmaps(), **_list_grids(), **_list_units(), **_list_others()}
"""For each case what makes its result."""

_HEAD = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>vizcnn: layouts</title>
<style>body {{ width: 900px; margin: 2em auto; font: 15px sans-serif; background: {paper}; color: {ink} }}
img {{ max-width: 100% }} h2 {{ margin: 2.5em 0 .5em; font-size: 17px }} p {{ white-space: pre-line }}</style>
"""


def write_page(folder: Path, style: str) -> None:
    """Write index.html and a picture for each page of each case."""
    folder.mkdir(parents=True, exist_ok=True)
    look = STYLES[style]
    parts = [_HEAD.format(paper=look.paper, ink=look.ink)]
    with vizcnn.use_style(style):
        for name, make in CASES.items():
            result = make()
            parts.append(f"<h2>{html.escape(name)}</h2>\n")
            for page in range(1, result.pages + 1):
                file = f"{name.replace(', ', '-').replace(' ', '_')}-{page}.png"
                (result.figure() if page == 1 else result.figure(page=page)).savefig(folder / file, dpi=110)
                parts.append(f'<img src="{file}" alt="{html.escape(name)}">\n')
            parts.append(f"<p>{html.escape(result.describe())}</p>\n")
    (folder / "index.html").write_text("".join(parts) + "</html>\n", encoding="utf-8")


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), *sys.argv[2:] or ["screen"])
