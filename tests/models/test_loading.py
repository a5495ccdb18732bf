from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save_file
from support import small_cnn
from torch import nn

import vizcnn
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError
from vizcnn.models import _torchvision
from vizcnn.models.checkpoints import read_weights
from vizcnn.models.loading import load


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache of downloaded weights, empty, and nothing can be downloaded into it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "127.0.0.1:9")
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def squeezenet() -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in load("squeezenet1_0@random").network.state_dict().items()}


def test_bundled_networks() -> None:
    assert load("tiny").input.size == (64, 64)
    assert load("lecture").input.channels == 1
    before, after = load("simple@initial"), load("simple")
    assert before.name == "simple@initial"
    assert before.weights_sha256() != after.weights_sha256()
    with pytest.raises(WeightsError, match="simple has no weights tagged 'inital'. Did you mean 'initial'?"):
        load("simple@inital")


TRAINING = """
import vizcnn
from torch import nn
def network(): return vizcnn.Model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train(), size=8)
"""


@pytest.mark.parametrize(
    "spec",
    [
        "tiny",
        "simple@initial",
        "squeezenet1_1@random",
        "squeezenet1_0@w.pth",
        "./n.py:network",
        "own",
        "timm:resnet10t",
    ],
)
def test_every_source_gives_a_network_in_eval_mode(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeezenet: dict[str, torch.Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(squeezenet, "w.pth")
    Path("n.py").write_text(TRAINING)
    Path("vizcnn.toml").write_text('[models.own]\nnetwork = "./n.py:network"\n')
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    model = load(spec, weights=not spec.startswith("timm:"))
    assert not any(module.training for module in model.network.modules())
    before, image = model.weights_sha256(), torch.rand(1, model.input.channels, *model.input.size)
    assert torch.equal(model(image), model(image))  # neither dropout nor batch statistics
    assert model.weights_sha256() == before


def test_a_network_that_a_person_wraps_stays_in_the_mode_that_it_is_in() -> None:
    network = small_cnn().train()
    vizcnn.Model(network, size=16)
    assert all(module.training for module in network.modules())


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ModelNotFound, match="no model named 'resnet19'. Did you mean 'resnet1.'.* Bundled: eleven, lecture, sim"
    ):
        load("resnet19")


def test_random_weights_are_always_the_same_ones_and_leave_the_random_state() -> None:
    state = torch.get_rng_state()
    assert load("squeezenet1_1@random").weights_sha256() == load("squeezenet1_1@random").weights_sha256()
    load("tiny")
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_cannot_be_reached_are_named_with_their_place(empty_cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load("squeezenet1_0")
    message = str(caught.value)
    assert message.startswith("squeezenet1_0: weights IMAGENET1K_V1 are not on this machine and cannot be downloaded")
    assert f"Expected the file squeezenet1_0-b66bff10.pth in {empty_cache}" in message
    assert "\n" not in message


def test_weights_in_torchs_cache_are_used(empty_cache: Path, squeezenet: dict[str, torch.Tensor]) -> None:
    empty_cache.mkdir(parents=True)
    squeezenet = {**squeezenet, "classifier.1.bias": torch.arange(1000.0)}
    torch.save(squeezenet, empty_cache / "squeezenet1_0-b66bff10.pth")
    for spec in ("squeezenet1_0", "squeezenet1_0@IMAGENET1K_V1"):
        model = load(spec)
        assert model.name == "squeezenet1_0@IMAGENET1K_V1"
        assert model.network.state_dict()["classifier.1.bias"][7] == 7
        assert model.input.resize == 256
        assert model.input.mean == (0.485, 0.456, 0.406)
        assert model.class_name(281) == "tabby"


def test_a_cached_file_that_is_no_weights_runs_no_code(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    torch.save(Attack(empty_cache / "owned"), empty_cache / "squeezenet1_0-b66bff10.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load("squeezenet1_0")
    assert not (empty_cache / "owned").exists()


def test_an_unknown_tag_is_answered_with_the_known() -> None:
    with pytest.raises(WeightsError, match="no weights tagged 'IMAGENET1K_V9'. Did you mean 'IMAGENET1K_V1'"):
        load("resnet18@IMAGENET1K_V9")


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_with_its_architecture(tmp_path: Path, squeezenet: dict[str, torch.Tensor], ending: str) -> None:
    path = tmp_path / f"mine.{ending}"
    half = {name: value.half() for name, value in squeezenet.items()}
    save_file(half, path) if ending == "safetensors" else torch.save(half, path)
    model = load(f"squeezenet1_0@{path}")
    assert model.name == f"squeezenet1_0@mine.{ending}"
    assert model.dtype == torch.float32
    torch.testing.assert_close(model.network.state_dict()["classifier.1.bias"], half["classifier.1.bias"].float())


def test_wrapped_checkpoints_and_other_numbers_of_classes(tmp_path: Path, squeezenet: dict[str, torch.Tensor]) -> None:
    state = {**squeezenet, "classifier.1.weight": torch.zeros(7, 512, 1, 1), "classifier.1.bias": torch.zeros(7)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    model = load(f"squeezenet1_0@{tmp_path / 'a.pth'}")
    assert model.labels is None
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", ["regnet_x_400mf", "maxvit_t"])
def test_checkpoints_of_networks_that_end_or_are_made_otherwise(tmp_path: Path, name: str) -> None:
    """RegNets compute while they are made; the last entry of a MaxViT is no bias."""
    import torchvision

    state = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
    torch.save(state, tmp_path / "a.pth")
    model = load(f"{name}@{tmp_path / 'a.pth'}")
    assert model.labels is None
    assert list(model.network.state_dict().values())[-1].shape[0] == 7


def test_checkpoints_that_cannot_be_used(tmp_path: Path, squeezenet: dict[str, torch.Tensor]) -> None:
    torch.save(Attack(tmp_path / "owned"), tmp_path / "attack.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({k: v for k, v in squeezenet.items() if k != "features.0.weight"}, tmp_path / "part.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    (tmp_path / "empty.pth").touch()
    torch.save(squeezenet, tmp_path / "other.safetensors")
    save_file(squeezenet, tmp_path / "other.pth")
    for file, message in (
        ("attack.pth", "is no plain weights file: reading it would run code that it names"),
        ("list.pth", "holds no state_dict .* but list"),
        ("part.pth", "the weights do not fit the architecture. missing: features.0.weight. Name the architecture that"),
        ("text.pth", "text.pth is no checkpoint: it begins with 'hello', perhaps a page or a pointer instead of the"),
        ("cut.safetensors", "cut.safetensors is no checkpoint: it begins with '.x08'"),
        ("empty.pth", "empty.pth is no checkpoint: it is empty. Copy it again"),
        ("other.safetensors", "torch.save has written it, and its name ends in .safetensors. Rename it to .pth"),
        ("other.pth", "it is a safetensors file, and its name ends otherwise. Rename it to .safetensors"),
        ("missing.pth", "no weights file"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            load(f"squeezenet1_0@{tmp_path / file}")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(ModelNotFound, match="x.pt2 cannot be probed: hooks on a TorchScript or exported network"):
        load("x.pt2")
    with pytest.raises(ModelNotFound, match="holds weights, not a network. Name the architecture too: ARCHITECTURE@"):
        load(str(tmp_path / "list.pth"))
    for name in ("runs.pth#ema", "model_best.pth.tar"):
        with pytest.raises(
            ModelNotFound, match="holds weights, not a network. Name the architecture too: ARCHITECTURE@"
        ):
            load(name)


def test_a_checkpoint_may_be_called_pth_tar(
    tmp_path: Path, squeezenet: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's own example of ImageNet calls it."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": squeezenet}, "model_best.pth.tar")
    assert load("squeezenet1_0@model_best.pth.tar").name == "squeezenet1_0@model_best.pth.tar"


def test_checkpoints_that_would_fill_the_memory_are_refused_before_they_do(
    tmp_path: Path, squeezenet: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved(name: str, bias: torch.Tensor) -> Path:
        torch.save({**squeezenet, "classifier.1.bias": bias}, tmp_path / name)
        return tmp_path / name

    one, blown_up = torch.zeros(1), "they would take 4,398.1 GB, out of a file of .* MB. It is damaged, or made to fill"
    for file, message in (
        (saved("a.pth", one.expand(2**40)), blown_up),
        (saved("b.pth", one.expand(2**26)), "do not fit the architecture"),  # 2**26 classes would need 137 GB
        (saved("c.pth", one[0]), "do not fit the architecture"),
    ):
        with pytest.raises(WeightsError, match=message):
            load(f"squeezenet1_0@{file}")
    torch.save({"a": torch.zeros(2**24)}, tmp_path / "zeros.pth")
    with ZipFile(tmp_path / "zeros.pth") as plain, ZipFile(tmp_path / "packed.pth", "w", ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    monkeypatch.setattr("vizcnn.models.checkpoints._SMALL", 2**24)
    with pytest.raises(WeightsError, match="they would take 0.1 GB, out of a file of 0.1 MB"):
        read_weights(tmp_path / "packed.pth")


def test_complex_weights_are_for_complex_networks(tmp_path: Path, squeezenet: dict[str, torch.Tensor]) -> None:
    bias = torch.zeros(1000, dtype=torch.complex64)
    torch.save({**squeezenet, "classifier.1.bias": bias}, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match="'classifier.1.bias' holds complex numbers, and the network takes real ones"
    ):
        load(f"squeezenet1_0@{tmp_path / 'a.pth'}")
    torch.save({"weight": torch.full((2, 2), 1j)}, tmp_path / "b.pth")
    (tmp_path / "mine.py").write_text(
        "import torch, vizcnn\n"
        "def f(): return vizcnn.Model(torch.nn.Linear(2, 2, bias=False, dtype=torch.complex64), size=8)\n"
    )
    assert load(f"{tmp_path}/mine.py:f@{tmp_path / 'b.pth'}").network.state_dict()["weight"][0, 0] == 1j


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\nb"], ids=["long", "NUL", "newline"])
@pytest.mark.parametrize("form", ["{}", "{}.pth", "resnet18@{}.pth", "{}.py:f", "{}:f", "mine@{}"])
def test_impossible_names_are_one_line(name: str, form: str) -> None:
    with pytest.raises((ModelNotFound, WeightsError)) as caught:
        load(form.format(name))
    assert str(caught.value).isprintable()


def test_a_download_is_announced_on_stderr_or_not_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError):
        load("squeezenet1_0")
    assert capfd.readouterr() == ("", "")


def test_torchscript_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(
        WeightsError, match="cannot be probed: hooks on a TorchScript or exported network raise or silently never"
    ):
        read_weights(tmp_path / "a.pt")
    with pytest.raises(ModelNotFound, match="cannot be probed: hooks on a TorchScript or exported network raise"):
        load(str(tmp_path / "a.pt"))


FACTORY = """
import vizcnn
from torch import nn
from beside import SIZE
def network(): return vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2)), size=SIZE)
def bare(): return nn.Linear(1, 1)
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "beside.py").write_text("SIZE = 4")
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)
    sys.modules.pop("beside", None)


def test_factories_in_modules_and_files(factory: Path) -> None:
    path = list(sys.path)
    assert load("mine:network").input.size == (4, 4)
    assert load("./mine.py:network").input.size == (4, 4)
    assert sys.path == path
    (factory / "we@ird").mkdir()
    (factory / "we@ird" / "mine.py").write_text(FACTORY.replace("from beside import SIZE", "SIZE = 4"))
    assert load("./we@ird/mine.py:network").input.size == (4, 4)
    torch.save({"1.weight": torch.ones(2, 48), "1.bias": torch.ones(2)}, factory / "w.pth")
    assert load("./mine.py:network@w.pth").network.state_dict()["1.bias"].tolist() == [1, 1]


@pytest.mark.usefixtures("factory")
def test_factories_that_cannot_be_used() -> None:
    for spec, message in (
        ("mine:netwrk", "mine has no function 'netwrk'. Did you mean 'network'?"),
        ("mine:SIZE", "'SIZE' of mine is no function but int"),
        (":network", "no module is named before the colon"),
        ("mine:bare", "returned Linear, not a vizcnn.Model: the input size and normalisation would be guesses"),
        ("./nothing.py:network", "no file nothing.py"),
        ("nothing:network", r"no module named 'nothing'. For a file write ./nothing.py:..."),
    ):
        with pytest.raises(ModelNotFound, match=message):
            load(spec)


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ParameterError, match="device 'cuda' cannot be used: "):
        load("tiny", device="cuda")


def test_torchvision_is_usable_in_this_environment_whatever_its_operators() -> None:
    models = _torchvision.import_models()
    with torch.no_grad():
        assert models.get_model("resnet18", weights=None).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_a_torchvision_without_its_operators_is_usable(tmp_path: Path) -> None:
    """A stand-in that fails as the real one does beside a CPU-only torch; CI also runs with a real one of that kind."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import _meta_registrations, models\n")
    (package / "models.py").write_text("NAME = 'stand-in'\n")
    (package / "_meta_registrations.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = "from vizcnn.models import _torchvision; assert _torchvision.import_models().NAME == 'stand-in'"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})


def test_other_import_errors_of_torchvision_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('disk on fire')\n")
    code = "from vizcnn.models import _torchvision; _torchvision.import_models()"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert "disk on fire" in answer.stderr


def test_real_squeezenet_from_the_cache(data: Path, empty_cache: Path) -> None:
    """The path of a person who has downloaded torchvision's weights, with real weights in that place."""
    empty_cache.mkdir(parents=True)
    (empty_cache / "squeezenet1_0-b66bff10.pth").symlink_to((data / "weights/squeezenet1_0.fp16.pth").resolve())
    model = load("squeezenet1_0")
    found = vizcnn.Occlusion(window=112, stride=56)(model, data / "images/photos/001b5e6f1b89fd3b.jpg")
    assert found.predictions[0][0].label == "gondola"


def test_small_networks_in_hand_need_no_loading() -> None:
    assert vizcnn.Model(small_cnn(), size=8).name == "Sequential"
