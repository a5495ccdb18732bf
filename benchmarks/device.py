"""Do all probes say on a device what they say on the processor, and how much faster?

    python benchmarks/device.py --device cuda

A torchvision network (He's weights, BatchNorm settled on made-up images) and made-up images, on the processor and on
the device, in float64 and float32. Difference: the largest between the numbers of two results, over the largest of the
processor's. Milliseconds: of the second call, in float32. A probe that optimizes runs a few steps: rounding grows with
each.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from occlusion import describe_machine, load_network, make_images, measure_time

import vizcnn
from vizcnn.probing import registry

KINDS: dict[str, tuple[dict[str, Any], ...]] = {
    "cam": tuple({"method": m} for m in ("cam", "grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam")),
    "dream": ({"steps": 2, "octaves": 2, "size": 96},),
    "invert": ({"steps": 4},),
    "maximize": ({"steps": 4},),
    "occlusion": tuple({"engine": engine} for engine in ("plain", "incremental")),
    "rise": ({"masks": 256},),
    "saliency": tuple(
        {"method": m, "samples": 8, "steps": 16}
        for m in ("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop")
    ),
    "style": ({"steps": 4, "size": 96},),
}
"""By probe, the options of each row; a probe that is not named has one row with its usual options."""

ONE_UNIT = ("deconvnet", "dream", "maximize")
"""Probes that ask for a unit of a layer instead of a class."""


def call(model: vizcnn.Model, name: str, options: Mapping[str, Any], images: int, unit: str) -> dict[str, Any]:
    """The arrays of a probe's result."""
    kind = registry.get(name)
    pictures = make_images(images, model.input.size[0])
    arguments: dict[str, Any] = {"target": unit} if name in ONE_UNIT else {}
    if kind.streams:
        arguments["images"] = [picture.permute(1, 2, 0).numpy() for picture in pictures]
    elif kind.needs_images:
        arguments["images"] = pictures[:1] if name in ("dream", "style") else pictures
    return dict(kind(**options)(model, progress=False, seed=3, **arguments).arrays())


def scan(model: vizcnn.Model, images: int, layer: str) -> dict[str, Any]:
    """What a scan finds of one layer, as arrays."""
    pictures = [picture.permute(1, 2, 0).numpy() for picture in make_images(images, model.input.size[0])]
    with tempfile.TemporaryDirectory() as folder:
        tally = vizcnn.scan(model, pictures, Path(folder) / "index", batch=8, progress=False).tally(layer)
        return {key: value.numpy() for key, value in tally.arrays().items()}


def measure_difference(far: Mapping[str, Any], near: Mapping[str, Any]) -> float:
    """The largest difference between numbers of two results, as a share of the largest of each array; whole numbers
    (places in an order) are left out, as a hair's breadth can change them."""
    worst = 0.0
    for key, values in near.items():
        if values.dtype.kind == "f" and values.size:
            gap = float(np.nanmax(np.abs(values.astype(float) - far[key]), initial=0))
            worst = max(worst, gap / max(1e-12, float(np.nanmax(np.abs(values), initial=0))))
    return worst


def make_pair(network: str, size: int, device: str, dtype: torch.dtype) -> tuple[vizcnn.Model, vizcnn.Model]:
    """The same network on the processor and on the device."""
    near, far = load_network(network, size), load_network(network, size)
    near.network.to(dtype)
    far.network.to(device, dtype)
    return near, far


def measure_row(run: Callable[[vizcnn.Model], dict[str, Any]], pairs: Mapping[str, Any]) -> list[str]:
    """The row's cells: differences, milliseconds, ratio."""
    cells = [f"{measure_difference(run(far), run(near)):.0e}" for near, far in pairs.values()]
    near, far = (measure_time(partial(run, model))[1].wall * 1000 for model in pairs["float32"])
    return [*cells, f"{near:.0f}", f"{far:.0f}", f"{near / far:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--layer", default="layer3.1.conv2", help="of the scan; its channel 3 is what ascents aim at")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--probes", nargs="+", default=[*registry.list_names(), "scan"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    print(
        f"{describe_machine(options.threads)}; {card}; {options.network}, {options.images} images, {options.size} px\n"
    )
    print("| probe | float64 | float32 | ms, processor | ms, device | times as fast |\n|---|---|---|---|---|---|")
    pairs = {
        kind: make_pair(options.network, options.size, options.device, getattr(torch, kind))
        for kind in ("float64", "float32")
    }
    for probe in options.probes:
        for given in KINDS.get(probe, ({},)):
            if probe == "scan":
                run = partial(scan, images=options.images, layer=options.layer)
            else:
                run = partial(call, name=probe, options=given, images=options.images, unit=f"{options.layer}:3")
            title = " ".join([probe, *(str(given[key]) for key in ("method", "engine") if key in given)])
            try:
                cells = measure_row(run, pairs)
            except vizcnn.VizcnnError as error:
                cells = [str(error)]
            print(f"| {' | '.join([title, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
