"""The command `check`: first contact with a network, or, without one, what is installed and can be named."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterator
from typing import Any

import click

from vizcnn.cli.options import DEVICE, LOADING, REPORTING, with_options
from vizcnn.probing.call import Call

_FIRST = ("occlusion", "cam", "saliency", "feature-maps")  # probes to begin with
_TESTING = {"test"}  # extras for those who work on vizcnn itself


@with_options(
    click.Option(["-m", "--model"], help="The same as MODEL: all that the probes take for -m."),
    DEVICE,
    *LOADING,
    *REPORTING,
)
@click.command(short_help="What is this network, and which probes work on it? First contact with your own.")
@click.argument("network", required=False, metavar="[MODEL]")
def check(
    network: str | None, model: str | None, device: str, json: bool, quiet: bool, debug: bool, **said: Any
) -> None:
    """First contact with a network: what was loaded and inferred, what it says of a sample photograph, which probes
    work on it, and which do not, with the reason and the remedy. No probe is run.

    Without MODEL: the networks that can be named, the version, devices and extras.

    \b
    vizcnn check
    vizcnn check resnet18@my_checkpoint.pth
    vizcnn check ./mine.py:network --json
    """
    from vizcnn.cli.session import Session

    if network and model:
        raise click.UsageError(f"two models were given: {network} and -m {model}. Leave one out")
    session = Session("check", Call(json=json, quiet=quiet, debug=debug))
    spec = network or model
    if spec is None:
        session.finish(_list_facts, lambda facts: facts, _describe_installation, lambda facts: facts["problems"])
    described = _Description(" ".join(["-m", shlex.quote(spec), *_list_options({**said, "device": device})]))
    session.finish(lambda: _check(spec, device, said), lambda found: found.manifest(), described, lambda _: [])


def _check(spec: str, device: str, said: dict[str, Any]) -> Any:
    """The check of a network. said: of it beside its name, as every command takes it."""
    from vizcnn.models.loading import load
    from vizcnn.probing.checking import check as run

    return run(load(spec, device=device, **said))


class _Description:
    """What the command prints of a Check: its own words, and the next command to type.

    network: the options that name it and say what was said of it."""

    def __init__(self, network: str) -> None:
        self.network = network

    def __call__(self, found: Any) -> str:
        works = {row[0]: "" for row in found.rows if row[1] == "yes"}
        works |= {row[0]: f" -t {shlex.quote(row[2])}" for row in found.rows if row[1] == "with a target"}
        for name in _FIRST:
            if name in works and (source := found.facts["sample"]["source"]):
                command = f"vizcnn {name} {source}{works[name]} {self.network}"
                return f"{found.describe()}\n\nNext: {command}"
        return str(found.describe())


def _list_options(said: dict[str, Any]) -> Iterator[str]:
    """The options that were given, as one types them again."""
    for name, value in said.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, tuple):
            value = ("x" if name == "input_size" else ",").join(map(str, value))
        if value is True:
            yield option
        elif value not in (None, False) and (name, value) != ("device", DEVICE.default):
            yield f"{option} {shlex.quote(str(value))}"


def _list_facts() -> dict[str, Any]:
    """What is installed, as plain values."""
    import torch

    from vizcnn import zoo
    from vizcnn.models.sources.configured import list_configured
    from vizcnn.version import __version__

    configured, problems = list_configured()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": list_devices(),
        "extras": find_extras(),
        "bundled": {name: zoo.read_card(name)["data"] for name in zoo.list_names()},
        "configured": {one.name: str(one.file) for one in configured},
        "problems": [*problems],
    }


def list_devices() -> list[str]:
    """The names that --device takes here, each with what it is."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return found + ["mps"] * torch.backends.mps.is_available()


def find_extras() -> dict[str, bool]:
    """For each extra of vizcnn, whether all that it asks for is installed."""
    from importlib.metadata import PackageNotFoundError, distribution, requires

    try:
        needed = requires("vizcnn") or []
    except PackageNotFoundError:  # run from its folder, never installed
        return {}
    found: dict[str, bool] = {}
    for requirement in needed:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None or extra[1] in _TESTING:
            continue
        try:
            distribution(name[0])
            here = True
        except PackageNotFoundError:
            here = False
        found[extra[1]] = found.get(extra[1], True) and here
    return found


def _describe_installation(facts: dict[str, Any]) -> str:
    return "\n".join(_list_lines(facts))


def _list_lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"vizcnn {facts['version']}, torch {facts['torch']}, Python {facts['python']}"
    yield ""
    yield f"{'Devices':10}{', '.join(facts['devices'])}"
    here = [name for name, installed in facts["extras"].items() if installed]
    missing = [name for name, installed in facts["extras"].items() if not installed]
    yield f"{'Extras':10}{', '.join(here) or 'none'}"
    if missing:
        yield f"{'':10}not installed: {', '.join(missing)} (pip install 'vizcnn[{missing[0]}]')"
    yield ""
    for i, (name, summary) in enumerate(facts["bundled"].items()):
        yield f"{'Bundled' if i == 0 else '':10}{name:10}{summary}"
    for i, (name, file) in enumerate(facts["configured"].items()):
        yield f"{'Yours' if i == 0 else '':10}{name:10}{file}"
    yield ""
    yield "Next: vizcnn check MODEL, with one of these, resnet18@FILE, timm:NAME, hf:NAME or ./file.py:factory"
