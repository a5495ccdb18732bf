"""Runs everything on the pretend device and prints what was found: a script for `test_device`, as the device stays."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pretend_device

kept = pretend_device.register()

import torch  # noqa: E402 - the device comes first
from support import QUICK, small_cnn  # noqa: E402

import vizcnn  # noqa: E402
from vizcnn import testing  # noqa: E402
from vizcnn.models.model import Model  # noqa: E402
from vizcnn.probing import registry  # noqa: E402

IMAGES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PHOTOS = [image.permute(1, 2, 0).numpy() for image in IMAGES]
KINDS: dict[str, list[dict[str, Any]]] = {
    "cam": [{"method": m} for m in ("grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam")],
    "occlusion": [{"engine": engine} for engine in ("plain", "incremental", "auto")],
    "saliency": [
        {"method": m}
        for m in ("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop", "deconvnet")
    ],
}
TARGETS = {"deconvnet": "3:5", "dream": "3:5", "maximize": "3:5"}


def wrap(network: torch.nn.Module) -> Model:
    return Model(network, size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))


NEAR, FAR = wrap(small_cnn()), wrap(small_cnn().to(pretend_device.NAME))


def call(model: Model, name: str, options: dict[str, Any]) -> Any:
    kind = registry.get(name)
    arguments: dict[str, Any] = {"target": TARGETS[name]} if name in TARGETS else {}
    if kind.needs_images:
        arguments["images"] = PHOTOS[:3] if kind.streams else IMAGES[:3]
    return kind(**QUICK.get(name, {}), **options)(model, progress=False, seed=3, **arguments).arrays()


def measure_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between two results' arrays, as a share of the largest number of each."""
    assert one.keys() == other.keys()
    worst = 0.0
    for key, values in one.items():
        assert values.shape == other[key].shape, key
        if values.dtype.kind in "fiu" and values.size:
            difference = np.nanmax(np.abs(values.astype(float) - other[key]), initial=0)
            worst = max(worst, float(difference / max(1e-12, np.nanmax(np.abs(values), initial=0))))
    return worst


def compare() -> dict[str, float]:
    """By probe, how far its numbers are from those of the processor."""
    found = {}
    for name in registry.list_names():
        for options in KINDS.get(name, [{}]):
            near, far = call(NEAR, name, options), call(FAR, name, options)
            found[" ".join([name, *options.values()])] = measure_difference(near, far)
    with tempfile.TemporaryDirectory() as folder:
        tallies = [
            vizcnn.scan(model, PHOTOS, Path(folder) / str(i), batch=3, progress=False).tally("3")
            for i, model in enumerate((NEAR, FAR))
        ]
        near, far = ({key: value.numpy() for key, value in tally.arrays().items()} for tally in tallies)
        found["scan"] = measure_difference(near, far)
    return found


def keep_contract() -> dict[str, str]:
    """By probe, what of the contract it breaks on the device; nothing where it keeps it."""
    make, broken = testing.delicate_model, {}

    def make_far(last: int | None = None) -> Model:
        model = make(last)
        model.network = model.network.to(pretend_device.NAME)
        return model

    testing.delicate_model = make_far
    quick = {**QUICK, "dream": {"steps": 1, "octaves": 1, "size": 16}, "style": {"steps": 1, "size": 16}}
    for name in registry.list_names():
        probe: Any = registry.get(name)(**quick.get(name, {}))
        for check in (testing._check_no_trace, testing._check_repeatable, testing._check_company):
            try:
                check(probe)
            except Exception as error:
                broken[name] = f"{check.__name__}: {type(error).__name__}: {error}"
    testing.delicate_model = make
    return broken


def count(function: Callable[[int], Any], few: int, many: int) -> dict[str, float]:
    """What each further step or batch costs."""
    costs = []
    for number in (few, many):
        function(number)  # what is done once is done now
        pretend_device.count.clear()
        function(number)
        costs.append(dict(pretend_device.count))
    return {kind: (costs[1].get(kind, 0) - costs[0].get(kind, 0)) / (many - few) for kind in costs[1]}


def scan(batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vizcnn.scan(FAR, PHOTOS[: 2 * batches], Path(folder) / "index", batch=2, progress=False)


def count_work() -> dict[str, dict[str, float]]:
    """By what goes on, the work for each further step of it."""
    quiet: dict[str, Any] = {"progress": False}
    one = IMAGES[:1]
    return {
        "maximize, step": count(lambda n: vizcnn.Maximize(steps=n)(FAR, target="3:5", **quiet), 2, 12),
        "dream, step": count(lambda n: vizcnn.Dream(steps=n, octaves=1, size=16)(FAR, one, "3:5", **quiet), 2, 12),
        "invert, step": count(lambda n: vizcnn.Invert(layers=("3",), steps=n)(FAR, one, **quiet), 2, 12),
        "style, step": count(lambda n: vizcnn.Style(steps=n, size=16)(FAR, one, **quiet), 2, 12),
        "occlusion, batch": count(
            lambda n: vizcnn.Occlusion(window=4, stride=4, engine="plain", batch=16 // n)(FAR, one, 1, **quiet), 2, 8
        ),
        "incremental occlusion, batch": count(
            lambda n: vizcnn.Occlusion(window=2, stride=2, engine="incremental", batch=64 // n)(FAR, one, 1, **quiet),
            2,
            8,
        ),
        "rise, batch": count(lambda n: vizcnn.Rise(masks=64, batch=64 // n)(FAR, one, 1, **quiet), 2, 8),
        "smoothgrad, batch": count(
            lambda n: vizcnn.Saliency(method="smoothgrad", samples=32, batch=32 // n)(FAR, one, 1, **quiet), 2, 8
        ),
        "gradient, batch": count(lambda n: vizcnn.Saliency(batch=2)(FAR, IMAGES[: 2 * n], 1, **quiet), 2, 8),
        "cam, batch": count(lambda n: vizcnn.Cam(batch=2)(FAR, IMAGES[: 2 * n], 1, **quiet), 2, 8),
        "scan, batch": count(scan, 2, 8),
        "digest, layer": count(
            lambda n: wrap(torch.nn.Sequential(*[deepcopy(FAR.network) for _ in range(n)])).weights_sha256(), 2, 12
        ),
    }


def count_images() -> dict[str, Any]:
    """By method: the work for one image, that for sixteen, and how far the maps are from those of the processor."""
    probes: dict[str, Any] = {
        method: vizcnn.Saliency(method=method, samples=2, steps=4)
        for method in ("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients")
    }
    probes |= {method: vizcnn.Cam(method=method) for method in ("grad-cam", "grad-cam++", "layer-cam")}
    found = {}
    for method, probe in probes.items():
        expected, counts = probe(NEAR, IMAGES, 1, progress=False).values, []
        for given in (IMAGES[:1], IMAGES):
            probe(FAR, given, 1, progress=False)  # the check of the network is done now
            pretend_device.count.clear()
            values = probe(FAR, given, 1, progress=False).values
            counts.append(dict(pretend_device.count))
        found[method] = [*counts, float(abs(values - expected).max() / abs(expected).max())]
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answers = {"compare": compare(), "contract": keep_contract(), "work": count_work(), "images": count_images()}
    print(json.dumps(answers))
