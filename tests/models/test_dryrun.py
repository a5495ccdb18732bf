"""Runs without numbers: what the mode answers itself is what torch does, and torch's compiler stays out of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support import small_cnn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import vizcnn
from vizcnn.models.layers import dryrun
from vizcnn.models.layers.dryrun import MetaMode, find_tensors, keep_last

Run = Callable[[Tensor], Any]
IMAGES = torch.rand(2, 6, 9, 7, generator=torch.Generator().manual_seed(0))  # (N, C, H, W)
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
ROW = torch.rand(1, 6, 1, 1)

ANSWERED: dict[str, Run] = {
    "sub, stretched": lambda x: x - ROW,
    "div": lambda x: x / (x + 1),
    "number": lambda x: 3 * x + 0.5,
    "a number of double precision": lambda x: x * torch.tensor(2.0, dtype=torch.float64),
    "functions": lambda x: (F.relu(x), F.gelu(x), F.silu(x), x.sigmoid(), x.tanh(), x.exp(), x.sqrt(), x.pow(2), -x),
    "clamp": lambda x: (x.clamp(0, 1), x.clamp_min(0.5)),
    "channels last": lambda x: F.relu(x.contiguous(memory_format=torch.channels_last)) + ROW,
    "permuted": lambda x: F.relu(x.permute(2, 0, 3, 1)) * 2,
    "mean": lambda x: (x.mean((2, 3)), x.mean((2, 3), keepdim=True), x.mean(-1), x.mean(1, dtype=torch.float64)),
    "average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "convolution": lambda x: F.conv2d(x, torch.rand(4, 6, 3, 2), torch.rand(4), (2, 1), (1, 0), (1, 2)),
    "one stride": lambda x: torch.convolution(x, torch.rand(4, 6, 3, 3), None, [2], [1], [1], False, [0], 1),
    "in groups": lambda x: F.conv2d(x, torch.rand(12, 2, 3, 3), groups=3, padding=1),
    "pooling": lambda x: (F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, (3, 2)), F.max_pool2d(x, 2, 1, dilation=2)),
    "places": lambda x: F.max_pool2d(x, 3, return_indices=True),
    "normalising": lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6)),
    "dense": lambda x: F.linear(x.flatten(1), torch.rand(5, 378), torch.rand(5)),
}
LEFT_TO_TORCH: dict[str, Run] = {
    "another dtype": lambda x: (x > 0.5, x + x.double(), x.round().long() + 1, x * 1j),
    "one number of double precision and another": lambda x: x.sum() * torch.tensor(2.0, dtype=torch.float64),
    "larger than the first": lambda x: ROW + x,
    "overlapping": lambda x: F.relu(x[:, :1].expand(-1, 3, -1, -1)),
    "with gaps": lambda x: F.relu(x[:, ::2]),
    "mean, channels last": lambda x: x.contiguous(memory_format=torch.channels_last).mean(3),
    "ceil": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "transposed": lambda x: F.conv_transpose2d(x, torch.rand(6, 4, 3, 3), stride=2, output_padding=1),
    "one dimension": lambda x: F.conv1d(x[:, :, 0].contiguous(), torch.rand(4, 6, 3)),
    "convolution, channels last": lambda x: F.conv2d(
        x.contiguous(memory_format=torch.channels_last), torch.rand(4, 6, 3, 3)
    ),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "written elsewhere": lambda x: torch.add(x, 1.0, out=torch.empty_like(x, dtype=torch.float64)),
    "limits that are larger": lambda x: x[:1].clamp(min=x),
    "softmax": lambda x: x.flatten(1).softmax(1),
}


def forms(outcome: Any) -> list[tuple[Any, ...]]:
    """Of each tensor shape, strides and dtype; the step along a side of 1 is nobody's business."""
    listed = list(outcome) if isinstance(outcome, tuple) else [outcome]
    return [
        (t.dtype, [(side, step if side != 1 else None) for side, step in zip(t.shape, t.stride(), strict=True)])
        for t in find_tensors(listed)
    ]


def dry(run: Run, dtype: torch.dtype = torch.float32) -> list[tuple[Any, ...]]:
    with torch.no_grad(), MetaMode():
        outcome = run(IMAGES.to("meta", dtype))
    assert all(t.is_meta for t in find_tensors([outcome] if isinstance(outcome, Tensor) else list(outcome)))
    return forms(outcome)


@pytest.mark.parametrize("run", ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_without_numbers_gives_the_shapes_strides_and_dtypes_of_one_with_numbers(
    run: Run, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(dtype)  # of the weights that the runs make
    monkeypatch.setitem(globals(), "ROW", ROW.to(dtype))
    try:
        assert dry(run, dtype) == forms(run(IMAGES.to(dtype)))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("run", LEFT_TO_TORCH.values(), ids=LEFT_TO_TORCH)
def test_other_operations_are_left_to_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dry(run)
    monkeypatch.setattr(dryrun, "_answer_quickly", lambda *_: None)
    assert found == dry(run)


@pytest.mark.parametrize("run", ANSWERED.values(), ids=ANSWERED)
def test_frequent_operations_are_answered_without_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the rules could be dead and nobody would notice."""
    left: list[str] = []
    fast_in_torch = {
        "_to_copy",
        "_unsafe_view",
        "clone",
        "lift_fresh",
        "permute",
        "squeeze",
        "t",
        "transpose",
        "unsqueeze",
        "view",
    }
    answer = dryrun._answer_quickly

    def watch(func: Any, args: Any, kwargs: Any) -> Any:
        outcome = answer(func, args, kwargs)
        if outcome is None and find_tensors(args, kwargs):
            left.append(func._schema.name.removeprefix("aten::"))
        return outcome

    monkeypatch.setattr(dryrun, "_answer_quickly", watch)
    dry(run)
    assert not set(left) - fast_in_torch


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x - torch.rand(1, 5, 1, 1),
        lambda x: F.conv2d(x, torch.rand(4, 5, 3, 3)),
        lambda x: F.conv2d(x, torch.rand(4, 6, 30, 3)),
        lambda x: F.max_pool2d(x, 3, padding=2),
        lambda x: F.max_pool2d(x, 3, stride=0),
        lambda x: F.linear(x.flatten(1), torch.rand(5, 377), torch.rand(5)),
        lambda x: x.mean(4),
        lambda x: x.mean((1, -3)),
    ],
    ids=["sub", "channels", "too large", "padding", "no stride", "dense", "no such side", "a side twice"],
)
def test_what_does_not_fit_fails_without_numbers_too(run: Run) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        run(IMAGES)
    with pytest.raises((RuntimeError, IndexError)), MetaMode():
        run(IMAGES.to("meta"))


@pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "_should_skip_dynamo"),
    reason="before torch 2.13 the compiler traces modes, and warns",
)
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")  # the compiler's
def test_a_compiled_network_is_followed_too_and_the_compiler_is_kept_out_of_that() -> None:
    """It would warn, which is an error here, and compile the mode's own methods again and again."""
    plain = small_cnn()
    compiled: Any = torch.compile(plain[:4], backend="eager")
    compiled = torch.nn.Sequential(compiled, plain[4:])
    found = [
        vizcnn.Occlusion(window=4, engine="incremental")(vizcnn.Model(network, size=16), IMAGE, 1, progress=False)
        for network in (compiled, plain)
    ]
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-5, atol=1e-7)
    assert [each.provenance.details["engine"] for each in found] == ["incremental"] * 2


COMMANDS = {
    "arithmetic": ["photos/a.png"],
    "cam": ["photos/a.png"],
    "deconvnet": ["photos/a.png", "-m", "lecture"],
    "dream": ["photos/a.png", "--steps", "1", "--size", "40"],
    "embed": ["photos"],
    "feature-maps": ["photos/a.png"],
    "filters": ["simple"],
    "invert": ["photos/a.png", "-m", "lecture", "--steps", "2"],
    "layers": ["tiny"],
    "maximize": ["lecture", "conv1:0", "--steps", "2"],
    "occlusion": ["photos/a.png"],
    "rise": ["photos/a.png", "--masks", "20"],
    "saliency": ["photos/a.png"],
    "style": ["photos/a.png", "--steps", "1", "--size", "40"],
    "top-images": ["photos", "-t", "conv1:0", "--beside", "filter,maximize"],
}


def test_no_command_of_ours_imports_torchs_compiler(photo_file: Path) -> None:
    """It takes longer than importing torch, and longer than most answers."""
    folder = photo_file.parent / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo_file.read_bytes())
    Image.open(photo_file).rotate(180).save(folder / "b.png")
    code = f"""
import sys
from vizcnn.cli.main import main
from vizcnn.probing import registry
commands = {COMMANDS!r}
ours = {{name for name in registry.list_names() if registry.get(name).__module__.startswith("vizcnn.")}}
print(sorted(ours - commands.keys()))
for name, arguments in commands.items():
    try:
        main([name, *arguments, "-q", "-o", "x.npz"])
    except SystemExit as end:
        print(name, end.code, "torch._dynamo" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=photo_file.parent)
    assert answer.stderr == ""
    assert answer.stdout.splitlines() == ["[]", *(f"{name} 0 False" for name in COMMANDS)]


def test_what_a_layer_last_gave_is_kept_in_the_order_of_last_runs() -> None:
    found: dict[str, int] = {}
    see = keep_last(found, lambda _name, output: [output] if isinstance(output, int) else [])
    for name, output in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", "no number")]:
        see(name, output)
    assert list(found.items()) == [("c", 3), ("a", 4)]
