"""Factories: a function of a person's own, in a module or a file, that returns a network."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from os.path import isfile
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vizcnn.errors import ModelNotFound, did_you_mean
from vizcnn.models.fitting import fill_network
from vizcnn.models.given import Given
from vizcnn.models.model import Model
from vizcnn.process import import_from


def load_factory(name: str, tag: str, given: Given, folder: Path | None = None) -> Model:
    """The Model that a factory returns, or a plain nn.Module of it with the input contract that was given.

    name: `package.module:factory` or `file.py:factory`. tag: a file of weights, or nothing. folder: where modules are
    looked for, besides those that are installed; by default the current one. Raises ModelNotFound, WeightsError.
    """
    made = _find_factory(name, folder or Path.cwd())()
    model = made if isinstance(made, Model) else _wrap(made, name, given)
    if tag:
        model.notes += fill_network(model.network, tag, f"{name}@{Path(tag).name}", trust_pickle=given.trust_pickle)
    return model


def _find_factory(name: str, folder: Path) -> Any:
    place, _, attribute = name.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place, folder)
    factory = getattr(module, attribute, None)
    if factory is not None and not callable(factory):
        raise ModelNotFound(f"{attribute!r} of {place} is no function but {type(factory).__name__}")
    if factory is None:
        near = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise ModelNotFound(f"{place} has no function {attribute!r}.{near}")
    return factory


def _wrap(made: Any, name: str, given: Given) -> Model:
    """A plain network as a Model, for images of the size that was given."""
    if not isinstance(made, nn.Module):
        raise ModelNotFound(f"{name} returned {type(made).__name__}, neither a vizcnn.Model nor an nn.Module")
    if given.input_size is None:
        raise ModelNotFound(
            f"{name} returned {type(made).__name__}, not a vizcnn.Model: the input size and normalisation would be "
            "guesses. Give --input-size 224, --mean and --std (input_size=224 ... in Python), or return "
            "vizcnn.Model(network, size=..., mean=..., std=...)"
        )
    channels: Any = given.input_channels or 3
    model = Model(made, size=given.input_size, channels=channels, mean=given.mean, std=given.std, name=name)
    if given.mean is None and given.std is None:
        model.notes += (f"{name}: pixels in [0, 1] go in as they are, since neither mean nor std was given",)
    return model


def _import_module(name: str, folder: Path) -> ModuleType:
    if not name:
        raise ModelNotFound("no module is named before the colon. Write package.module:factory or ./file.py:factory")
    try:
        with import_from(folder):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise ModelNotFound(
                f"no module named {error.name!r}. For a file write ./{name.replace('.', '/')}.py:..."
            ) from error
        raise


def _import_file(path: Path) -> ModuleType:
    if not isfile(path):
        raise ModelNotFound(f"no file {path}")
    name = f"vizcnn_file_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # true of every .py file, and so is the next line
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with import_from(path.resolve().parent):
        spec.loader.exec_module(module)
    return module
