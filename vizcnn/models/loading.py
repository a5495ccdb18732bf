"""Loading: a Model from what a person types."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from io import StringIO
from math import prod
from os.path import isfile
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from vizcnn import zoo
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError, describe_address, did_you_mean
from vizcnn.models import _torchvision
from vizcnn.models.model import Model
from vizcnn.models.threads import keep_random_state, seed_random
from vizcnn.process import keep_environment

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_SMALL, _PACKED = 2**28, 8  # weights may take _SMALL bytes, and _PACKED more for each byte of their file


def load(spec: str, *, device: str | torch.device = "cpu", weights: bool = True) -> Model:
    """Load a Model by its name.

    spec:
        `tiny`, `eleven`, `lecture`         a bundled network
        `simple`, `simple@initial`          the same, after its training and before
        `resnet18`, `resnet18@WEIGHTS_TAG`  a torchvision network with its weights; default weights without a tag
        `resnet18@random`                   a torchvision network with random weights, always the same ones
        `resnet18@weights.pth`              a torchvision architecture with a checkpoint (.safetensors, .pth)
        `package.module:factory`            a function of no arguments that returns a vizcnn.Model
        `./file.py:factory`                 the same, from a file
        `...:factory@weights.pth`           a factory's network with a checkpoint loaded into it
    device: where the network and its inputs live.
    weights: False where the architecture is enough: a torchvision name without a tag is then read as NAME@random, and
        nothing is downloaded.

    The network is always in eval mode, also where a factory left it in training mode: `model(images)` is then the
    answer that probes explain. To train it further, call `model.network.train()`.
    Pickled checkpoints are read as weights only, so that loading one runs no code from it.
    Raises ModelNotFound and WeightsError.
    """
    with keep_random_state(), keep_environment():  # building a network draws random weights
        model = _load(spec, "" if weights else "random")
    model.network.eval()
    try:
        model.network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return model


def _load(spec: str, default_tag: str) -> Model:
    for part in (spec, spec.rpartition("@")[2]):
        if address := describe_address(part):
            raise ModelNotFound(address)
    file, ending, rest = spec.rpartition(".py:")  # a path may hold an @ of its own
    name, _, tag = rest.partition("@")
    if ":" in name or ending:
        return _call_factory(file + ending + name, tag)
    return _load_bundled(name, tag) if name in zoo.list_names() else _load_torchvision(name, tag or default_tag)


def _load_torchvision(name: str, tag: str) -> Model:
    library = _torchvision.import_models()
    builders = library.list_models(module=library)
    if name not in builders:
        raise ModelNotFound(_explain_unknown(name, [*zoo.list_names(), *builders]))
    tags = list(library.get_model_weights(name))
    if tag == "random":
        return _wrap_torchvision(_build_random(library, name), name, tags[0], f"{name}@random")
    if _is_file(tag):
        return _load_checkpoint(library, name, tags[0], tag)
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


_NO_LAYERS = (
    "hooks on a TorchScript or exported network raise or silently never fire. Save the Python network's state_dict and "
    "load it as ARCHITECTURE@FILE"
)


def _explain_unknown(name: str, known: list[str]) -> str:
    if Path(name).suffix == ".pt2" or (isfile(name) and _is_torchscript(_list_members(Path(name)))):
        return f"{name} cannot be probed: {_NO_LAYERS}"
    if Path(name).suffix in CHECKPOINTS:
        return f"{name} holds weights, not a network. Name the architecture too: ARCHITECTURE@{name}"
    bundled = ", ".join(zoo.list_names())
    return f"no model named {name!r}.{did_you_mean(name, known)} Bundled: {bundled}; or a torchvision name"


def _is_file(tag: str) -> bool:
    return Path(tag).suffix in CHECKPOINTS or "/" in tag or os.sep in tag


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
            f"{name}: {folder / file} cannot be read as weights: {_take_first_line(error)}. Delete it"
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


def _wrap_torchvision(network: nn.Module, name: str, weights: Any, spec: str) -> Model:
    """A torchvision network with the preprocessing and labels of its published weights."""
    preprocessing, labels = weights.transforms(), weights.meta["categories"]
    if not all(hasattr(preprocessing, key) for key in ("crop_size", "resize_size", "mean", "std")):
        raise ModelNotFound(f"{name} is not an image classifier. Wrap it: vizcnn.Model(network, size=...)")
    crop, resize = preprocessing.crop_size[0], preprocessing.resize_size[0]
    return Model(
        network,
        size=crop,
        mean=preprocessing.mean,
        std=preprocessing.std,
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


def _choose_options(name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The options that the two Inception networks need, as torchvision passes them when it loads their weights."""
    if name not in ("googlenet", "inception_v3"):
        return {}
    auxiliary = state is None or any(key.lower().startswith("aux") for key in state)
    return {"aux_logits": auxiliary, "transform_input": True, "init_weights": False}


def _load_checkpoint(library: Any, name: str, weights: Any, file: str) -> Model:
    state = read_weights(file)
    spec = f"{name}@{Path(file).name}"
    quirks = _choose_options(name, state)
    last = list(_build_outline(library, name, **quirks).state_dict())[-1]  # the bias of the output, or its weights
    values = state.get(last)
    classes = len(values) if values is not None and values.dim() in (1, 2) and len(values) else 1000
    outline = _build_outline(library, name, num_classes=classes, **quirks)
    _load_state(state, outline, spec, assign=True)  # a shape that does not fit is found before memory is asked for
    network = library.get_model(name, weights=None, num_classes=classes, **quirks)
    _load_state(state, network, spec)
    model = _wrap_torchvision(network, name, weights, spec)
    if model.labels is not None and classes != len(model.labels):
        model.labels = None
    return model


def _build_outline(library: Any, name: str, **options: Any) -> nn.Module:
    """A torchvision network without memory for its weights; with it, where the network computes while it is built."""
    try:
        with torch.device("meta"):
            network: nn.Module = library.get_model(name, weights=None, **options)
    except NotImplementedError:  # such as RegNets
        network = library.get_model(name, weights=None, **options)
    return network


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name. Raises WeightsError.

    Wrappers (`state_dict`, `model`) and the prefix `module.` of parallel training are removed.
    """
    path = Path(file)
    if not isfile(path):
        raise WeightsError(f"no weights file {path}")
    try:
        state = _read(path)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path} is no plain weights file: reading it would run code that it names ({_find_named_code(error)}). "
            "Save only the state_dict, best as .safetensors"
        ) from error
    except WeightsError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {_take_first_line(error)}"
        raise WeightsError(f"{path} cannot be read as weights: {reason}") from error
    tensors = _unwrap(state, path)
    _refuse_blown_up(path, sum(prod(each.shape) * each.element_size() for each in tensors.values()))
    return tensors


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    members = _list_members(path)
    if _is_torchscript(members):
        raise WeightsError(f"{path} cannot be probed: {_NO_LAYERS}")
    _refuse_blown_up(path, sum(member.file_size for member in members))
    return torch.load(path, map_location="cpu", weights_only=True)


def _list_members(path: Path) -> list[ZipInfo]:
    """The members of a zip archive, such as torch writes; none for another file or a damaged archive."""
    try:
        with ZipFile(path) as archive:
            return archive.infolist()
    except Exception:  # there are many ways to be no archive, and torch will name this one
        return []


def _is_torchscript(members: list[ZipInfo]) -> bool:
    return any(member.filename.endswith("/constants.pkl") for member in members)


def _refuse_blown_up(path: Path, stated: int) -> None:
    """Raise WeightsError for a small file whose weights would take far more memory than its size makes likely.

    stated: bytes that the weights would take."""
    size = path.stat().st_size
    if stated > _SMALL + _PACKED * size:
        raise WeightsError(
            f"{path} cannot be read as weights: they would take {stated / 1e9:,.1f} GB, out of a file of "
            f"{size / 1e6:,.1f} MB. It is damaged, or made to fill your memory"
        )


def _unwrap(state: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state_dict (tensors by name) but {type(state).__name__}")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _load_state(state: Mapping[str, Tensor], network: nn.Module, spec: str, *, assign: bool = False) -> None:
    """Load weights into a network; assign: replace its tensors instead of filling them. Raises WeightsError."""
    own = network.state_dict()
    for name, value in state.items():
        if value.is_complex() and name in own and not own[name].is_complex():
            raise WeightsError(f"{spec}: {name!r} holds complex numbers, and the network takes real ones there")
    try:
        network.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        lines = lines[1:] or lines  # the first says of which class the network is
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise WeightsError(f"{spec}: the weights do not fit the architecture. {lines[0][:200]}{more}") from error


def _call_factory(name: str, tag: str) -> Model:
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
        _load_state(read_weights(tag), model.network, name)
    return model


def _import_module(name: str) -> ModuleType:
    if not name:
        raise ModelNotFound("no module is named before the colon. Write package.module:factory or ./file.py:factory")
    try:
        with _import_from(Path.cwd()):
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
    with _import_from(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _import_from(folder: Path) -> Iterator[None]:
    """While the context is open, imports find the modules of this folder too, as for a script that is run there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _find_named_code(error: BaseException) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else "not even a known format"


def _take_first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
