"""check_probe(): the contract that every probe keeps, ours and everybody's. For use in a plugin's own tests:

def test_contract(tmp_path):
    vizcnn.testing.check_probe("my-probe", tmp_path)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizcnn.errors import DegenerateResult, NonFiniteResult, VizcnnWarning
from vizcnn.inputs.tensors import to_photo
from vizcnn.models.borrowing import borrow
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.probing import registry
from vizcnn.probing.checking import judge
from vizcnn.probing.facts import observe
from vizcnn.probing.probe import Probe
from vizcnn.probing.rebuilding import probe_from
from vizcnn.results import Heatmap, Projections, Result, load_result
from vizcnn.results.check import UNKNOWN, WORKS
from vizcnn.results.storing import RECORD

State = dict[str, Any]

FAILURE = "this network fails on purpose"


class Delicate(nn.Module):
    """A small network with everything that a careless probe would disturb: in-place ReLU, batch normalisation,
    dropout, a frozen parameter, a buffer that counts its runs, a tensor made on the first run and used in all others.

    last: the number of the run in which it raises."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(16, 5)
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))
        self.offset: Tensor | None = None
        self.last = last
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.count += 1
        if self.offset is None:
            self.offset = x.new_zeros(())
        if self.last == self.runs:
            raise RuntimeError(FAILURE)
        x = self.drop(self.relu(self.norm(self.conv(x) + self.offset)))  # (N, 4, H, W)
        logits: Tensor = self.fc(self.pool(x).flatten(1))  # (N, 5)
        return logits


def delicate_model(last: int | None = None) -> Model:
    """A Model of a Delicate network in a mixed state, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Delicate(last)
    network.train()
    network.drop.eval()
    network.conv.bias.requires_grad_(False)  # type: ignore[union-attr]
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    return Model(network, size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), labels=list("abcde"), name="delicate")


def state_of(model: Model) -> State:
    """All that a probe must leave as it was."""
    network = model.network
    return {
        "modes": [m.training for m in network.modules()],
        "in-place flags": [getattr(m, "inplace", None) for m in network.modules()],
        "hooks": [[len(getattr(m, kind)) for kind in _HOOKS] for m in network.modules()],
        "attributes": [sorted(vars(m)) for m in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in network.parameters()],
        "parameter objects": [id(p) for p in network.parameters()],
        "weights": model.weights_sha256(),
        "random state": torch.get_rng_state().tolist(),
        "numpy random state": str(np.random.get_state()),
        "gradient mode": torch.is_grad_enabled(),
    }


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def check_probe(name: str, folder: Path, **options: Any) -> None:
    """Check that the registered probe of this name keeps the contract; AssertionError says what it broke.

    No trace on the network after a normal run, a bad target and a network that raises in the probe's last use of it,
    and the network can still be trained; inputs unchanged; same seed, same numbers; for an image the same map, or none,
    alone and beside another; it does not say that it would fail where it works; results save and describe themselves,
    have records, and say with which options the probe is made again; of probes that make maps, these are the same with
    `trust`, which leaves no trace either and is saved; the command line gives the same arrays.
    folder: an empty folder to write into. options: of the probe, such as fewer steps for a quicker check.
    """
    assert registry.read_summary(name).strip(), f"{name} has no summary: write a docstring"
    probe = registry.get(name)(**options)
    _check_no_trace(probe)
    _check_repeatable(probe)
    _check_company(probe)
    _check_rehearsal(probe)
    result = _run(probe, delicate_model())
    _check_result(result, folder)
    _check_manifest(probe, result)
    if probe.makes_maps:
        _check_trust(probe, result, folder)
    _check_command_line(name, probe, options, folder)


def _check_rehearsal(probe: Probe[Any]) -> None:
    """Check that a probe which works says so, or does not say at all; and leaves no trace on the way."""
    model = delicate_model()
    before = state_of(model)
    with borrow(model, "rehearsal"), torch.no_grad():
        image = _images()[:1]
        verdict = judge(probe, observe(model, image, to_photo(image[0])))
    assert verdict.works in (WORKS, UNKNOWN), f"rehearse says that it would not work: {verdict.reason}"
    assert state_of(model) == before, "rehearse left a trace on the network"


def _run(probe: Probe[Result], model: Model, images: Tensor | None = None, **arguments: Any) -> Result:
    if probe.needs_images:
        arguments["images"] = _images() if images is None else images
    return probe(model, progress=False, **arguments)


def _images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def _check_no_trace(probe: Probe[Any]) -> None:
    model, images = delicate_model(), _images()
    kept = images.clone()
    error = _leaves_no_trace("a normal run", model, probe, images)
    if error:
        raise error
    assert torch.equal(images, kept), "the input tensor was changed"
    model(kept.to(model.device)).sum().backward()  # fails if the network has kept a tensor that knows no gradient
    assert isinstance(model.network, Delicate)
    runs = model.network.runs - 1
    if runs:
        raising = delicate_model(runs)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", VizcnnWarning)
            broken = _leaves_no_trace("a network that raises", raising, probe, images)
        assert isinstance(raising.network, Delicate)
        came = raising.network.runs >= runs  # a probe that goes by time may do with fewer runs now
        said = any(FAILURE in str(each.message) for each in warned)  # such as: another way is taken, for this reason
        assert broken or said or not came, "the network raised, and the probe hid it"
    if probe.needs_target:
        bad = _leaves_no_trace("a bad target", delicate_model(), probe, images, target="no such class")
        assert bad, "a target that does not exist was accepted"


def _leaves_no_trace(what: str, model: Model, probe: Probe[Any], images: Tensor, **arguments: Any) -> Exception | None:
    """Run the probe on the model; returns the error that it ended in."""
    before, caught = state_of(model), None
    try:
        _run(probe, model, images, **arguments)
    except Exception as error:
        caught = error
    after = state_of(model)
    for key in before:
        assert before[key] == after[key], f"after {what} the network's {key} differ from before"
    return caught


def _check_repeatable(probe: Probe[Any]) -> None:
    first, second = (_run(probe, delicate_model(), seed=3).arrays() for _ in range(2))
    _same_arrays(first, second, "the same seed gave other numbers")


def _check_company(probe: Probe[Any]) -> None:
    """Check that an image has the same map alone and beside another, or none in both cases, for probes that give a map
    for each image."""
    images = _images() * torch.tensor([0.5, 1]).view(2, 1, 1, 1)  # one cannot stand for the other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VizcnnWarning)  # of an image that is left out, which is looked at below
        together = _run(probe, delicate_model(), images, seed=3)
    if not isinstance(together, Heatmap):
        return
    rows = {digest: row for row, (_, digest) in enumerate(together.provenance.images)}
    for image in images:
        row, alone = rows.get(to_photo(image).sha256()), None
        with suppress(DegenerateResult, NonFiniteResult):
            alone = _run(probe, delicate_model(), image[None], seed=3)
        if row is None and alone is None:
            continue
        assert row is not None, f"an image has a map alone and is refused beside another. {_FOR_EACH}"
        assert isinstance(alone, Heatmap), f"an image is refused alone and has a map beside another. {_FOR_EACH}"
        np.testing.assert_allclose(
            together.values[row],
            alone.values[0],
            rtol=1e-3,
            atol=1e-4 * float(np.nanmax(np.abs(alone.values))),
            err_msg=f"an image has another map alone than beside another. {_FOR_EACH}",
        )


_FOR_EACH = (
    "Where the method is given several images, nothing may be computed over all of them (a mean, a largest value), the "
    "target of each is its own, and random numbers are drawn for each anew, from "
    "torch.Generator().manual_seed(subject.seed)"
)


def _same_arrays(a: dict[str, Any], b: dict[str, Any], otherwise: str) -> None:
    assert a.keys() == b.keys(), f"{otherwise}: {sorted(a)} against {sorted(b)}"
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-6, err_msg=f"{otherwise} in {key!r}")


def _check_result(result: Result, folder: Path) -> None:
    assert result.describe().strip(), "the result does not describe itself"
    assert result.provenance.weights_sha256, "the result does not say which weights it is about"
    _check_records(result)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a .png picture holds page 1 of", VizcnnWarning)  # as long ones may
        for kind in (".png", ".npz", ".safetensors", ".json", ".html"):
            assert result.save(folder / f"result{kind}").stat().st_size > 0
    for kind in (".npz", ".safetensors", ".json"):
        opened = load_result(folder / f"result{kind}")
        assert opened.provenance == result.provenance, f"the provenance differs when {kind} is opened again"
        assert opened.describe() == result.describe(), f"the description differs when {kind} is opened again"
        if kind != ".json":
            _same_arrays(result.arrays(), opened.arrays(), f"the numbers differ when {kind} is opened again")
    with np.load(folder / "result.npz") as saved:
        _same_arrays(result.arrays(), _numbers_in(saved), "the saved numbers differ")


def _check_trust(probe: Probe[Any], result: Result, folder: Path) -> None:
    """Check that maps are the same where it is asked how far they can be believed, that what was found out is saved,
    and that the network is left as it was."""
    error = _leaves_no_trace("a run with trust", delicate_model(), probe, _images(), trust=True)
    if error:
        raise error
    trusted = _run(probe, delicate_model(), trust=True)
    assert isinstance(trusted, Heatmap | Projections), "a probe with makes_maps returns a Heatmap"
    _same_arrays(result.arrays(), trusted.arrays(), "with trust the numbers differ")
    assert len(trusted.trust) == len(trusted.provenance.images), "there is no trust for each image"
    for kind in (".npz", ".safetensors"):
        opened = load_result(trusted.save(folder / f"trusted{kind}"))
        assert isinstance(opened, Heatmap | Projections)
        assert opened.trust == trusted.trust, f"trust differs when {kind} is opened again"
    _check_records(trusted)


def _check_manifest(probe: Probe[Any], result: Result) -> None:
    again = probe_from(json.loads(json.dumps(result.manifest())))
    assert again == probe, f"the manifest gives another probe: {again}, not {probe}"


def _check_records(result: Result) -> None:
    records = result.records()
    json.dumps(records, allow_nan=False)
    assert all(record.keys() == records[0].keys() for record in records), "records have other keys than the first"
    values = [value for record in records for value in record.values()]
    assert all(value is None or isinstance(value, str | int | float) for value in values), "records are not plain"


def _check_command_line(name: str, probe: Probe[Any], options: dict[str, Any], folder: Path) -> None:
    from click.testing import CliRunner

    from vizcnn.cli.main import main

    out, image = folder / "cli.npz", "sample:grace_hopper"
    arguments = [name, *([image] if probe.needs_images else []), "-m", "tiny", "-q", "-o", str(out)]
    arguments += [word for option, value in options.items() for word in _to_words(option.replace("_", "-"), value)]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, f"vizcnn {' '.join(arguments)} failed: {answer.output}"
    python = probe(load("tiny"), *([image] if probe.needs_images else []), progress=False)
    with np.load(out) as saved:
        _same_arrays(python.arrays(), _numbers_in(saved), "command line and Python differ")


def _to_words(option: str, value: Any) -> list[str]:
    """An option as a person writes it on the command line."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    if isinstance(value, list | tuple):
        sides = all(isinstance(each, int) for each in value)  # of a window, 4x6; names have commas between
        return [f"--{option}", ("x" if sides else ",").join(map(str, value))]
    return [f"--{option}", str(value)]


def _numbers_in(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The result's arrays in an opened .npz, without what stands there to open it as a result."""
    return {name: saved[name] for name in saved if name != "manifest" and name.partition(".")[0] != RECORD}
