"""Loading: a Model from what a person types."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from hashlib import sha256
from io import StringIO
from os.path import isfile
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vizcnn import zoo
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError, describe_address, did_you_mean
from vizcnn.models import _torchvision
from vizcnn.models.architectures import Architecture, build_filled
from vizcnn.models.checkpoints import (
    CHECKPOINTS,
    NO_LAYERS,
    is_torchscript,
    split_part,
    take_first_line,
)
from vizcnn.models.fitting import fill_network
from vizcnn.models.model import Model
from vizcnn.models.threads import keep_random_state, seed_random
from vizcnn.process import import_from, keep_environment


def load(spec: str, *, device: str | torch.device = "cpu", weights: bool = True, trust_pickle: bool = False) -> Model:
    """Load a Model by its name.

    spec:
        `tiny`, `lecture`, `simple`         a bundled network (`simple@initial`: before its training)
        `resnet18`, `resnet18@WEIGHTS_TAG`  a torchvision network with its weights; default weights without a tag
        `resnet18@random`                   a torchvision network with random weights, always the same ones
        `resnet18@weights.pth`              a torchvision architecture with a checkpoint (.safetensors, .pth)
        `package.module:factory`            a function of no arguments that returns a vizcnn.Model
        `./file.py:factory`                 the same, from a file
        `...:factory@weights.pth`           a factory's network with a checkpoint loaded into it
        `resnet18@runs.pth#model_ema`       one of several sets of weights in a file, where more than one fits
    device: where the network and its inputs live.
    weights: False where the architecture is enough: a torchvision name without a tag is then read as NAME@random, and
        nothing is downloaded.
    trust_pickle: read checkpoints that hold objects of any class, or a whole pickled network, whose weights are taken.
        Reading such a file runs the code that it names: for files whose makers you trust.

    Prefixes of a checkpoint's names, such as `module.`, `_orig_mod.` or `model.`, are taken off where the network's own
    names are found behind them, and for torchvision networks the weights tell the numbers of classes and of input
    channels. `Model.notes` says in a line what was taken off, inferred and ignored. Names that are missing, or of which
    the network has no such layer, are an error that lists them.
    The network is always in eval mode, also where a factory left it in training mode: `model(images)` is then the
    answer that probes explain. To train it further, call `model.network.train()`.
    Without trust_pickle, pickled checkpoints are read as weights only, so that loading one runs no code from it.
    Raises ModelNotFound and WeightsError.
    """
    with keep_random_state(), keep_environment():  # building a network draws random weights
        model = _load(spec, "" if weights else "random", trust_pickle)
    model.trusts_pickle = trust_pickle
    model.network.eval()
    try:
        model.network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return model


def _load(spec: str, default_tag: str, trust_pickle: bool) -> Model:
    for part in (spec, spec.rpartition("@")[2]):
        if address := describe_address(part):
            raise ModelNotFound(address)
    file, ending, rest = spec.rpartition(".py:")  # a path may hold an @ of its own
    name, _, tag = rest.partition("@")
    if ":" in name or ending:
        return _call_factory(file + ending + name, tag, trust_pickle)
    if name in zoo.list_names():
        return _load_bundled(name, tag)
    return _load_torchvision(name, tag or default_tag, trust_pickle)


def _load_torchvision(name: str, tag: str, trust_pickle: bool) -> Model:
    library = _torchvision.import_models()
    builders = library.list_models(module=library)
    if name not in builders:
        raise ModelNotFound(_explain_unknown(name, [*zoo.list_names(), *builders]))
    tags = list(library.get_model_weights(name))
    if tag == "random":
        return _wrap_torchvision(_build_random(library, name), name, tags[0], f"{name}@random")
    if _is_file(tag):
        return _load_checkpoint(library, name, tags[0], tag, trust_pickle)
    known = {weights.name: weights for weights in tags}
    if tag and tag not in known:
        raise WeightsError(
            f"{name} has no weights tagged {tag!r}.{did_you_mean(tag, known)} There are: {', '.join(known)}, random, "
            f"or a file ending in {', '.join(CHECKPOINTS)}"
        )
    weights = known[tag] if tag else library.get_model_weights(name).DEFAULT
    _download(name, weights)
    return _wrap_torchvision(
        library.get_model(name, weights=weights, progress=False), name, weights, f"{name}@{weights.name}"
    )


def _explain_unknown(name: str, known: list[str]) -> str:
    if Path(name).suffix == ".pt2" or is_torchscript(name):
        return f"{name} cannot be probed: {NO_LAYERS}"
    if Path(split_part(name)[0]).suffix in CHECKPOINTS:
        return f"{name} holds weights, not a network. Name the architecture too: ARCHITECTURE@{name}"
    bundled = ", ".join(zoo.list_names())
    return f"no model named {name!r}.{did_you_mean(name, known)} Bundled: {bundled}; or a torchvision name"


def _is_file(tag: str) -> bool:
    return Path(split_part(tag)[0]).suffix in CHECKPOINTS or "/" in tag or os.sep in tag


def _download(name: str, weights: Any) -> None:
    """Download weights into torch's cache if they are not there, and check that they are nothing but weights."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = weights.url.rsplit("/", 1)[-1]
    try:
        with _show_download():
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise WeightsError(
            f"{name}: weights {weights.name} are not on this machine and cannot be downloaded ({error}). "
            f"Expected the file {file} in {folder}. Put it there, or load any file as {name}@FILE, or use {name}@random"
        ) from error
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"{name}: {folder / file} cannot be read as weights: {take_first_line(error)}. Delete it"
        ) from error


@contextmanager
def _show_download() -> Iterator[None]:
    """Show torch's messages of a download on standard error if that is a terminal; standard output is the program's."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    with redirect_stderr(sys.stderr if shown else StringIO()) as place, redirect_stdout(place):
        yield


def _load_bundled(name: str, tag: str) -> Model:
    facts = zoo.read_card(name)
    contract = {**facts["input"], "size": tuple(facts["input"]["size"])}
    spec = f"{name}@{tag}" if tag else name
    return Model(zoo.load_network(name, tag), labels=facts["labels"], head="logits", name=spec, **contract)


def _wrap_torchvision(network: nn.Module, name: str, weights: Any, spec: str, channels: int = 3) -> Model:
    """A torchvision network with the preprocessing and labels of its published weights, for RGB images; nothing is
    known of the normalisation for others."""
    preprocessing, labels = weights.transforms(), weights.meta["categories"]
    if not all(hasattr(preprocessing, key) for key in ("crop_size", "resize_size", "mean", "std")):
        raise ModelNotFound(f"{name} is not an image classifier. Wrap it: vizcnn.Model(network, size=...)")
    colours: dict[str, Any] = {"channels": channels}
    if channels == 3:
        colours.update(mean=preprocessing.mean, std=preprocessing.std)
    crop, resize = preprocessing.crop_size[0], preprocessing.resize_size[0]
    return Model(
        network,
        size=crop,
        **colours,
        resize=resize,
        interpolation="bicubic" if preprocessing.interpolation.value == "bicubic" else "bilinear",
        labels=labels,
        head="logits",
        name=spec,
    )


def _build_random(library: Any, name: str) -> nn.Module:
    with seed_random(0):
        network: nn.Module = library.get_model(name, weights=None, **_choose_options(name))
    return network


def _choose_options(name: str) -> dict[str, Any]:
    """The options that the two Inception networks need, as torchvision passes them when it loads their weights."""
    if name not in ("googlenet", "inception_v3"):
        return {}
    return {"aux_logits": True, "transform_input": True, "init_weights": False}


def _load_checkpoint(library: Any, name: str, weights: Any, file: str, trust_pickle: bool) -> Model:
    spec = f"{name}@{Path(file).name}"
    filled = build_filled(_find_architecture(library, name), file, spec, trust_pickle=trust_pickle)
    model = _wrap_torchvision(filled.network, name, weights, spec, filled.channels)
    model.notes = filled.notes
    if filled.channels != 3:
        model.notes += (f"{spec}: mean and std are known for RGB only, so that its images stay in [0, 1]",)
    if model.labels is not None and filled.classes != len(model.labels):
        model.labels = None
    return model


def _find_architecture(library: Any, name: str) -> Architecture:
    """A torchvision network as it is built for a checkpoint, of the two Inceptions with and without auxiliary heads."""
    auxiliary = [{"aux_logits": True}, {"aux_logits": False}] if _choose_options(name) else [{}]

    def build(classes: int, channels: int, **options: Any) -> nn.Module:
        quirks = {**_choose_options(name), **options}
        if channels != 3 and quirks:
            quirks["transform_input"] = False  # it is for three colours
        network: nn.Module = library.get_model(name, weights=None, num_classes=classes, **quirks)
        if channels != 3:
            _take_channels(network, channels)
        return network

    return Architecture([partial(build, **options) for options in auxiliary])


def _take_channels(network: nn.Module, channels: int) -> None:
    """Give a network for RGB images another number of input channels: its first convolution is made anew."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    new = nn.Conv2d(
        channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)


def _call_factory(name: str, tag: str, trust_pickle: bool) -> Model:
    place, _, attribute = name.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    factory = getattr(module, attribute, None)
    if factory is not None and not callable(factory):
        raise ModelNotFound(f"{attribute!r} of {place} is no function but {type(factory).__name__}")
    if factory is None:
        near = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise ModelNotFound(f"{place} has no function {attribute!r}.{near}")
    model = factory()
    if not isinstance(model, Model):
        raise ModelNotFound(
            f"{name} returned {type(model).__name__}, not a vizcnn.Model: the input size and normalisation would be "
            "guesses. Return vizcnn.Model(network, size=..., mean=..., std=...)"
        )
    if tag:
        spec = f"{name}@{Path(tag).name}"
        model.notes += fill_network(model.network, tag, spec, trust_pickle=trust_pickle)
    return model


def _import_module(name: str) -> ModuleType:
    if not name:
        raise ModelNotFound("no module is named before the colon. Write package.module:factory or ./file.py:factory")
    try:
        with import_from(Path.cwd()):
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
