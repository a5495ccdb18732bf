"""Runs everything on the pretend device and prints what was found: a script for `test_device`, as the device stays."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pretend_device

kept = pretend_device.register()

import torch  # noqa: E402 - the device comes first
from support import QUICK, small_cnn  # noqa: E402

import vizcnn  # noqa: E402
from vizcnn import testing  # noqa: E402
from vizcnn.ascent import RECIPES, Objective, optimize  # noqa: E402
from vizcnn.ascent.rng import Rng  # noqa: E402
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
WORK = ("operations", "waits", "copies")
TARGETS = {"deconvnet": "3:5", "dream": "3:5", "maximize": "3:5"}


def wrap(network: torch.nn.Module) -> Model:
    return Model(network, size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))


NEAR, FAR = wrap(small_cnn()), wrap(small_cnn().to(pretend_device.NAME))


def call(model: Model, name: str, options: dict[str, Any], images: int = 3) -> Any:
    kind = registry.get(name)
    arguments: dict[str, Any] = {"target": TARGETS[name]} if name in TARGETS else {}
    if kind.needs_images:
        arguments["images"] = PHOTOS[:images] if kind.streams else IMAGES[:images]
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


def count_calls() -> dict[str, dict[str, list[float]]]:
    """By probe: launches, waits and copies of a call with two images, and of each further image."""
    found = {}
    for name in registry.list_names():
        for options in KINDS.get(name, [{}]):
            run = partial(call, FAR, name, options)
            whole, each = _count_once(run, 2), count(run, 2, 4)
            found[" ".join([name, *options.values()])] = {kind: [whole[kind], each[kind]] for kind in WORK}
    return found


def _count_once(run: Callable[[int], Any], number: int) -> Counter[str]:
    run(number)  # what is done once is done now
    pretend_device.count.clear()
    run(number)
    return Counter(pretend_device.count)


def count(function: Callable[[int], Any], few: int, many: int) -> dict[str, float]:
    """What each further step or batch costs."""
    less, more = (_count_once(function, number) for number in (few, many))
    return {kind: (more[kind] - less[kind]) / (many - few) for kind in WORK}


def scan(batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vizcnn.scan(FAR, PHOTOS[: 2 * batches], Path(folder) / "index", batch=2, progress=False)


def count_work() -> dict[str, dict[str, float]]:
    """By what goes on, the work for each further step of it."""
    quiet: dict[str, Any] = {"progress": False}
    one = IMAGES[:1]
    return {
        "maximize, step": count(lambda n: vizcnn.Maximize(steps=n)(FAR, target="3:5", **quiet), 8, 40),
        "dream, step": count(lambda n: vizcnn.Dream(steps=n, octaves=1, size=16)(FAR, one, "3:5", **quiet), 8, 40),
        "invert, step": count(lambda n: vizcnn.Invert(layers=("3",), steps=n)(FAR, one, **quiet), 8, 40),
        "style, step": count(lambda n: vizcnn.Style(steps=n, size=16)(FAR, one, **quiet), 8, 40),
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


def climb() -> dict[str, Any]:
    """By recipe: whether pictures of a target that falls silent on its way are those of the processor, how often a
    block of steps was taken again for that, and the work of each further step of a target that does not."""
    unit = torch.nn.Conv2d(3, 2, 1)
    unit.weight.data.fill_(1.0)
    unit.bias.data.fill_(-0.6)  # type: ignore[union-attr]
    network = torch.nn.Sequential(unit, torch.nn.ReLU())
    near, far = wrap(deepcopy(network)), wrap(network.to(pretend_device.NAME))
    wanted = [Objective(vizcnn.target("1:0"), lowered=True), Objective(vizcnn.target("1:1"))]
    found: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        made = []
        for model in (near, far):
            REWINDS.clear()
            with model.borrowed():
                made.append(optimize(model, wanted, replace(recipe, steps=24, rate=4 * recipe.rate), progress=False))
        again, difference = len(REWINDS), float((made[0].pictures - made[1].pictures).abs().max())
        run = partial(_climb_steps, name)
        found[name] = {"difference": difference, "again": again, **count(run, 48, 144)}
    return found


def _climb_steps(recipe: str, steps: int) -> None:
    vizcnn.Maximize(preset=recipe, steps=steps)(FAR, target="3:5", progress=False)


REWINDS: list[Rng] = []
_rewind = Rng.rewind


def rewind(self: Rng) -> None:
    REWINDS.append(self)
    _rewind(self)


Rng.rewind = rewind  # type: ignore[method-assign]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parts = (compare, keep_contract, count_work, count_images, count_calls, climb)
    asked = sys.argv[1:] or [part.__name__ for part in parts]
    print(json.dumps({part.__name__: part() for part in parts if part.__name__ in asked}))
