"""What maps of many images cost on a device beyond the network's own work."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent.parent

_COUNT = f"""
import json, sys, warnings
sys.path.insert(0, {str(_TESTS)!r})
warnings.simplefilter("ignore")
import pretend_device
kept = pretend_device.register()
import torch, vizcnn
from support import small_cnn

images, near = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)), small_cnn()
probes = {{method: vizcnn.Saliency(method=method, samples=2, steps=4)
          for method in ("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients")}}
probes |= {{method: vizcnn.Cam(method=method) for method in ("grad-cam", "grad-cam++", "layer-cam")}}
found, expected = {{}}, {{}}
for method, probe in probes.items():
    expected[method] = probe(vizcnn.Model(near, size=16), images, 1, progress=False).values
far = vizcnn.Model(near.to("npy"), size=16)
for method, probe in probes.items():
    counts = []
    for given in (images[:1], images):
        probe(far, given, 1, progress=False)  # the check of the network is done now
        pretend_device.count.clear()
        values = probe(far, given, 1, progress=False).values
        counts.append(dict(pretend_device.count))
    found[method] = [*counts, float(abs(values - expected[method]).max() / abs(expected[method]).max())]
print(json.dumps(found))
"""


@cache
def count_work() -> dict[str, tuple[dict[str, int], dict[str, int], float]]:
    """By method: the work for one image, that for sixteen, and how far the maps are from those of the processor."""
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, tuple[dict[str, int], dict[str, int], float]] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize(
    "method",
    [
        *("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients"),
        *("grad-cam", "grad-cam++", "layer-cam"),
    ],
)
def test_sixteen_images_cost_a_device_little_more_than_one(method: str) -> None:
    one, sixteen, difference = count_work()[method]
    assert difference < 1e-5
    assert sixteen["waits"] == one["waits"]
    assert sixteen["operations"] / 16 < one["operations"] / 5
