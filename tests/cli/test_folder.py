"""A probe over a folder, as a person meets it: the same as image by image, sooner, and it goes on where it was."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from support import small_cnn
from support_process import hear_ctrl_c, run_vizcnn
from torch import Tensor, nn

import vizcnn
from vizcnn.cli import images, saving
from vizcnn.cli.main import main
from vizcnn.cli.session import Session
from vizcnn.errors import ParameterError, VizcnnWarning
from vizcnn.graph.recording import record
from vizcnn.inputs import provenance_in
from vizcnn.inputs.records import save_options
from vizcnn.models.layers.axes import find_layers
from vizcnn.models.model import Model
from vizcnn.models.remembering import keep, promise_unchanged, recall
from vizcnn.occlusion import sweep
from vizcnn.probing import probe
from vizcnn.probing.call import Call
from vizcnn.results import Curve

NETWORK = """
import os, torch, vizcnn
from torch import nn

def make():
    torch.manual_seed(int(os.environ.get("SEED", "0")))
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return vizcnn.Model(nn.Sequential(*layers), size=16, name="small", labels=["cat", "dog", "owl"])

class Slow(nn.Module):
    def forward(self, x):
        import time
        time.sleep(0.1)
        return x.flatten(1)[:, :2]

def slow():
    return vizcnn.Model(Slow(), size=16, name="slow")
"""

SMALL = ("-m", "./net.py:make")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `photos` of six photographs, and networks in `net.py`."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(6):
        draw(f"photos/{i}.png", i)
    Path("net.py").write_text(NETWORK)


def draw(path: str, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)).save(path)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def found(*arguments: object, code: int = 0) -> Any:
    """The one object that a probe's `--json` prints."""
    answer = call(*arguments, "--json")
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)


def run(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "vizcnn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **settings)


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("probe", ["cam", "saliency", "occlusion"])
def test_a_folder_gives_what_one_call_per_image_gives(probe: str) -> None:
    together = found(probe, "photos", *SMALL, "-o", "together")["results"]
    alone = [found(probe, f"photos/{i}.png", *SMALL, "-o", "alone")["results"][0] for i in range(6)]
    assert [Path(one.pop("file")).name for one in together] == [Path(one.pop("file")).name for one in alone]
    assert together == alone
    for picture in Path("alone").iterdir():
        assert np.array_equal(pixels(picture), pixels(Path("together") / picture.name)), picture
        assert provenance_in(picture) == provenance_in(Path("together") / picture.name)


def test_lines_come_in_the_order_of_the_images_and_bad_ones_are_said_one_by_one() -> None:
    Path("photos/2.png").write_text("hello")
    Path("photos/4.png").write_bytes(Path("photos/3.png").read_bytes()[:200])
    answer = run_vizcnn("saliency", "photos", "sample:grace_hopper", "gone.jpg", *SMALL, "-o", "out")
    assert answer.returncode == 3
    said = [line.split(":")[0] for line in answer.stdout.splitlines()[::2]]
    assert said == ["0.png", "1.png", "3.png", "5.png", "grace_hopper.jpg"]
    assert answer.stdout.splitlines()[1] == "  out/0-saliency.png"
    problems = answer.stderr.splitlines()
    assert len(problems) == 3
    reasons = ("2.png is not an image", "4.png cannot be decoded", "gone.jpg does not exist")
    for problem, words in zip(problems, reasons, strict=True):
        assert problem.startswith("vizcnn: Saliency on small: ")
        assert words in problem


def test_a_warning_that_all_images_give_is_said_once() -> None:
    Path("soft.py").write_text(
        "import vizcnn\nfrom torch import nn\n"
        "def f(): return vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Softmax(1)), size=8)\n"
    )
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 4000, (8, 8), np.uint16)).save(f"photos/{i}.png")
    answer = call("saliency", "photos", "-m", "./soft.py:f", "-t", "1", "-o", "out")
    assert answer.exit_code == 0, answer.output
    assert answer.stderr.count("\n") == 2
    assert answer.stderr.count("the target of Sequential is a probability") == 1
    assert answer.stderr.count("no sample of an image is above 16383") == 1


def test_an_interrupted_command_goes_on_where_it_was() -> None:
    first = found("saliency", "photos", *SMALL, "-o", "out")
    for i in (1, 4):
        Path(f"out/{i}-saliency.png").unlink()
    written = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    answer = run_vizcnn("saliency", "photos", *SMALL, "-o", "out")
    assert answer.returncode == 0
    assert [line for line in answer.stdout.splitlines() if "is there already" in line] == [
        f"out/{i}-saliency.png is there already" for i in (0, 2, 3, 5)
    ]
    assert {path: path.stat().st_mtime_ns for path in written} == written
    Path("out/4-saliency.png").unlink()
    again = found("saliency", "photos", *SMALL, "-o", "out")
    assert again["there"] == [f"out/{i}-saliency.png" for i in (0, 1, 2, 3, 5)]
    assert again["results"] == [first["results"][4]]


@pytest.mark.parametrize("probe", ["cam", "occlusion", "rise", "feature-maps", "deconvnet", "dream"])
def test_every_kind_of_picture_is_known_again(probe: str) -> None:
    few = {"dream": ("--steps", "1"), "rise": ("--masks", "100"), "deconvnet": ("-t", "1:2")}.get(probe, ())
    network = ("-m", "./net.py:make")
    first = found(probe, "photos/0.png", "photos/1.png", *network, *few, "-o", "out")
    assert len(first["results"]) == 2
    again = found(probe, "photos/0.png", "photos/1.png", *network, *few, "-o", "out")
    assert (len(again["there"]), again["results"]) == (2, [])


def test_a_picture_of_another_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*options: object) -> list[str]:
        answer = found("saliency", "photos", *SMALL, "-o", "out", *options)
        return [Path(one["file"]).name[0] for one in answer["results"]]

    everything = list("012345")
    assert again() == everything
    assert again() == []
    assert again("--method", "smoothgrad", "--samples", "2") == everything
    assert again("--method", "smoothgrad", "--samples", "2", "--seed", "1") == everything
    assert again("-t", "dog") == everything
    assert again("-t", "dog") == []
    assert again() != []  # of those that are no dogs
    assert again() == []
    draw("photos/3.png", 33)
    assert again() == ["3"]
    monkeypatch.setenv("SEED", "1")
    assert again() == everything  # with other weights


MAKING = """
import torch, vizcnn
from torch import nn

class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
    def forward(self, x):
        return x * self.factor

def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), Scale(1.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return vizcnn.Model(nn.Sequential(*layers), size=16, name="small", labels=["cat", "dog", "owl"])
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ReLU()", "Sigmoid()"),
        ("x * self.factor", "x + self.factor"),
        ("Scale(1.5)", "Scale(2.5)"),
        ('"owl"]', '"kite"]'),
        ('"owl"]', '"owl"], head="sigmoid-logits"'),
    ],
)
def test_a_picture_of_another_network_with_the_same_weights_is_made_again(old: str, new: str) -> None:
    asked = ("saliency", "photos/0.png", "photos/1.png", "-m", "./net.py:make", "-t", "0", "-o", "out")
    Path("net.py").write_text(MAKING)
    first = found(*asked)["results"]
    assert run_vizcnn(*asked).stdout.count("is there already") == 2  # another process, with addresses of its own
    Path("net.py").write_text(MAKING.replace(old, new))
    again = found(*asked)
    assert len(again["results"]) == 2
    before, after = (each["provenance"] for each in (first[0], again["results"][0]))
    assert before["weights_sha256"] == after["weights_sha256"]
    assert len(found(*asked)["there"]) == 2


def test_a_picture_of_other_contents_of_an_options_file_is_made_again() -> None:
    few = ("--steps", "1", "--size", "16", "--content-layer", "0", "--style-layers", "0")
    asked = ("style", "photos/0.png", "photos/1.png", *SMALL, "--like", "like.png", *few, "-o", "out")
    draw("like.png", 10)
    assert len(found(*asked)["results"]) == 2
    assert len(found(*asked)["there"]) == 2
    draw("like.png", 11)
    assert len(found(*asked)["results"]) == 2


def test_a_picture_of_another_version_of_a_plugin_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("saliency", "photos/0.png", "photos/1.png", *SMALL, "-o", "out")
    for version in ("acme 1.0", "acme 1.1"):
        monkeypatch.setattr(probe, "find_plugin", lambda _module, version=version: version)
        assert [one["provenance"]["plugin"] for one in found(*asked)["results"]] == [version] * 2
        assert len(found(*asked)["there"]) == 2


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["here", "by workers"])
def test_a_picture_in_another_style_is_made_again(workers: tuple[str, ...]) -> None:
    asked = ("saliency", "photos", *SMALL, "-o", "out")
    assert len(found(*asked)["results"]) == 6
    dark = (*asked, "--style", "dark")
    assert len(found(*dark, *workers)["results"]) == 6
    for picture in Path("out").iterdir():
        assert (provenance_in(picture) or {})["style"] == "dark"
        assert pixels(picture)[0, 0, :3].max() < 60
    assert len(found(*dark)["there"]) == 6
    assert len(found(*asked, "--style", "screen", *workers)["results"]) == 6


def test_pictures_without_trust_are_made_again_with_it() -> None:
    asked = ("saliency", "photos/0.png", "photos/1.png", *SMALL, "-o", "out")
    assert [one["images"][0]["maps"][0]["trust"] for one in found(*asked)["results"]] == [None, None]
    for one in found(*asked, "--trust", "--workers", "1")["results"]:
        assert one["images"][0]["maps"][0]["trust"]["runs"] == 101
        assert (provenance_in(Path(one["file"])) or {})["trust"] is True
    assert len(found(*asked, "--trust")["there"]) == 2
    assert len(found(*asked)["results"]) == 2


def test_a_picture_from_before_there_was_trust_is_kept() -> None:
    asked = ("saliency", "photos/0.png", "photos/1.png", *SMALL, "-o", "out")
    for one in found(*asked)["results"]:
        record = provenance_in(Path(one["file"]))
        assert record is not None
        del record["trust"]
        with Image.open(one["file"]) as picture:
            picture.save(one["file"], **save_options("png", record))
    assert len(found(*asked)["there"]) == 2


def test_a_picture_for_a_paper_is_a_pdf_where_no_file_is_named() -> None:
    for style in ("print", "print-wide"):
        (result,) = found("saliency", "photos/0.png", *SMALL, "--style", style)["results"]
        assert result["file"] == "0-saliency.pdf"
        assert Path("0-saliency.pdf").read_bytes().startswith(b"%PDF")
    asked = ("saliency", "photos", *SMALL, "-o", "out", "--style")
    assert len(found(*asked, "print")["results"]) == 6
    assert len(found(*asked, "print")["there"]) == 6
    cut = Path("out/0-saliency.pdf")
    cut.write_bytes(cut.read_bytes()[:-6])
    assert [one["file"] for one in found(*asked, "print")["results"]] == [str(cut)]
    assert len(found(*asked, "print-wide")["results"]) == 6
    assert "'screen', 'dark', 'print', 'print-wide'" in call("saliency", "photos/0.png", "--style", "paper").output


def test_a_picture_from_before_the_network_had_a_digest_is_made_again() -> None:
    asked = ("saliency", "photos/0.png", "photos/1.png", *SMALL, "-o", "out")
    found(*asked)
    old = provenance_in("out/0-saliency.png") or {}
    assert len(old.pop("network_sha256")) == 64
    with Image.open("out/0-saliency.png") as picture:
        picture.save("out/0-saliency.png", **save_options("png", old))
    assert [Path(one["file"]).name for one in found(*asked)["results"]] == ["0-saliency.png"]


@pytest.mark.parametrize("frames", [(), ("--frames", "2")])
def test_a_picture_that_was_cut_off_is_made_again(frames: tuple[str, ...]) -> None:
    asked = ("dream", "photos/0.png", "photos/1.png", *SMALL, "--steps", "2", *frames, "-o", "out")
    first, second = (Path(one["file"]) for one in found(*asked)["results"])
    whole = first.read_bytes()
    for cut in (whole[:-1], whole[: len(whole) // 2]):
        first.write_bytes(cut)
        assert provenance_in(first) is not None
        assert found(*asked)["there"] == [str(second)]
        assert first.read_bytes() == whole


def test_one_image_alone_is_made_again_as_asked() -> None:
    for _ in range(2):
        assert len(found("saliency", "photos/0.png", *SMALL, "-o", "out")["results"]) == 1


def test_a_command_over_a_folder_remembers_what_is_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    digested: list[Model] = []
    recorded: list[Model] = []
    digest = Model.weights_sha256

    def digest_weights(model: Model) -> str:
        digested.append(model)
        return digest(model)

    def record_graph(model: Model, *of: Any) -> Any:
        recorded.append(model)
        return record(model, *of)

    monkeypatch.setattr(Model, "weights_sha256", digest_weights)
    monkeypatch.setattr(sweep, "record", record_graph)
    assert len(found("occlusion", "photos", *SMALL, "-o", "out")["results"]) == 6
    assert (len(digested), len(recorded)) == (1, 1)


def test_nothing_is_remembered_without_a_promise() -> None:
    model = Model(small_cnn(), size=16)
    keep(model, "a", 1)
    assert recall(model, "a") is None
    image = np.random.default_rng(0).random((16, 16, 3))
    before = vizcnn.Saliency()(model, image, target=0)
    with torch.no_grad():
        model.network[0].weight.data.mul_(2)  # type: ignore[index]
    after = vizcnn.Saliency()(model, image, target=0)
    assert before.provenance.weights_sha256 != after.provenance.weights_sha256
    assert not np.array_equal(before.values, after.values)


def test_a_broken_promise_is_seen_by_its_signs() -> None:
    model = Model(small_cnn(), size=16)
    network: Any = model.network
    with promise_unchanged(model):
        for change in (
            lambda: network[0].weight.detach().mul_(2),
            lambda: setattr(network[0], "weight", nn.Parameter(torch.ones_like(network[0].weight))),
            lambda: network.train(not network.training),
            lambda: network[0].register_forward_hook(lambda *_: None),
        ):
            keep(model, "a", 1)
            assert recall(model, "a") == 1
            change()
            assert recall(model, "a") is None
    assert recall(model, "a") is None


def test_a_promise_inside_another_keeps_what_is_known() -> None:
    model = Model(small_cnn(), size=16)
    with promise_unchanged(model):
        keep(model, "a", 1)
        with promise_unchanged(model):
            assert recall(model, "a") == 1
            keep(model, "b", 2)
        assert (recall(model, "a"), recall(model, "b")) == (1, 2)
    assert recall(model, "a") is None


class Choosing(nn.Module):
    """A network that takes another way for a dark image."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.dark = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        way = self.bright if float(x.mean()) > 0.5 else self.dark
        return way(x).mean((2, 3))  # type: ignore[no-any-return]


def test_what_an_image_decided_is_not_remembered_for_another() -> None:
    model = Model(Choosing(), size=16)
    with promise_unchanged(model):
        assert "bright" in find_layers(model, torch.ones(1, 3, 16, 16))
        assert "dark" in find_layers(model, torch.zeros(1, 3, 16, 16))


def test_results_are_let_go_when_they_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of images: otherwise memory would grow with it."""
    model = vizcnn.load("./net.py:make")
    photos: list[weakref.ref[Any]] = []
    outcomes: list[images.Outcome] = []
    most = 0

    def compute(model: Model, image: Any, progress: bool) -> Any:
        nonlocal most
        result = vizcnn.Saliency()(model, image, progress=progress)
        photos.append(weakref.ref(result.photos[0]))
        gc.collect()
        most = max(most, sum(photo() is not None for photo in photos))
        return result

    monkeypatch.setattr(images, "_MOST_WAITING", 2)
    tasks = [images.Task(f"photos/{i % 6}.png", Path(f"{i}.png")) for i in range(12)]
    with saving.open_pool(len(tasks)) as pool:
        images.Work(compute).run(model, tasks, outcomes.append, pool=pool)
    assert [outcome.task for outcome in outcomes] == tasks
    assert [outcome.error for outcome in outcomes if not outcome.saved] == []
    assert most <= 5  # two that wait, the one at work, the one before it, the next


def test_a_process_that_draws_and_is_killed_costs_no_picture() -> None:
    model = vizcnn.load("./net.py:make")
    result = vizcnn.Saliency()(model, "photos/0.png")
    with saving.open_pool(2) as pool:
        assert pool is not None
        victim = pool.submit(os.getpid).result(60)
        os.kill(victim, signal.SIGSTOP)  # so that it cannot be done before it is killed
        on_its_way = saving.Saving(result, Path("a.png"), None, pool)
        os.kill(victim, signal.SIGKILL)
        latest = time.monotonic() + 60
        while not on_its_way.is_done():
            assert time.monotonic() < latest
            time.sleep(0.01)
        later = saving.Saving(result, Path("b.png"), None, pool)
        later.wait()
        with pytest.warns(VizcnnWarning, match="a process that draws pictures has ended"):
            on_its_way.wait()
    assert np.array_equal(pixels(Path("a.png")), pixels(Path("b.png")))


def test_a_result_that_cannot_be_sent_is_saved_here() -> None:
    @dataclass(frozen=True)
    class Own(Curve):
        """Of a class that no other process can find."""

    provenance = vizcnn.Layers()(vizcnn.load("./net.py:make")).provenance
    own = Own(provenance, np.arange(3.0), np.ones((1, 3)), ("a",), "x", "y")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(own)
    with saving.open_pool(2) as pool:
        assert saving.Saving(own, Path("a.png"), None, pool).wait().manifest == own.manifest()
    assert (provenance_in("a.png") or {})["probe"] == "layers"


def test_processes_that_draw_load_no_torch() -> None:
    code = (
        "import sys, vizcnn.cli.saving, vizcnn.results as r; r.prepare_drawing(); assert 'torch' not in sys.modules\n"
        "assert 'matplotlib' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_written_is_an_error_of_its_image_alone() -> None:
    Path("out").mkdir()
    Path("out/3-saliency.png").mkdir()
    answer = call("saliency", "photos", *SMALL, "-o", "out")
    assert answer.exit_code == 1  # and known before anything is computed
    assert "out/3-saliency.png is a folder" in answer.stderr


def test_ctrl_c_keeps_the_images_that_are_done_and_the_next_call_does_the_others() -> None:
    asked = ("photos", "-m", "./net.py:slow", "-t", "0", "--window", "4", "--stride", "4", "--batch", "1", "-o", "out")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "vizcnn", "occlusion", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        while "  out/0-occlusion.png\n" not in said:
            said += os.read(process.stdout.fileno(), 4096).decode() or pytest.fail("it ended too early")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the processes that draw get it too
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    said += output
    kept = [path.name for path in sorted(Path("out").iterdir())]
    assert kept == [f"{i}-occlusion.png" for i in range(len(kept))]
    assert all(f"  out/{name}\n" in said for name in kept)
    assert 1 <= len(kept) < 6
    partial = [name for name in kept if (provenance_in(f"out/{name}") or {}).get("partial")]
    assert len(partial) == said.count("Interrupted: the map is partial.")
    again = found("occlusion", *asked)
    assert [Path(name).name for name in again["there"]] == [name for name in kept if name not in partial]
    assert len(again["results"]) == 6 - len(again["there"])
    assert not any((provenance_in(path) or {}).get("partial") for path in Path("out").iterdir())


def test_workers_share_the_images_and_say_the_same() -> None:
    pytest.importorskip("distributed")
    Path("photos/2.png").write_text("hello")
    found("saliency", "photos/5.png", "photos/0.png", *SMALL, "-o", "shared")
    alone = run_vizcnn("saliency", "photos", *SMALL, "-o", "alone")
    shared = run("saliency", "photos", *SMALL, "-o", "shared", "--workers", "2")
    assert (alone.returncode, shared.returncode) == (3, 3), shared.stderr
    lines = shared.stdout.replace("shared/", "alone/").splitlines()
    there = [line for line in lines if "is there already" in line]
    assert there == [f"alone/{i}-saliency.png is there already" for i in (0, 5)]
    assert [line for line in lines if line not in there] == alone.stdout.splitlines()[2:-2]
    assert shared.stderr == alone.stderr
    for path in Path("alone").iterdir():
        assert np.array_equal(pixels(path), pixels(Path("shared") / path.name))
        assert provenance_in(path) == provenance_in(Path("shared") / path.name)


def test_pictures_that_workers_made_are_known_again_by_one_process() -> None:
    """A network of a class that workers get by its value, without its file."""
    pytest.importorskip("distributed")
    Path("net.py").write_text(MAKING)
    asked = ("saliency", "photos/0.png", "photos/1.png", *SMALL, "-o", "out")
    assert run(*asked, "--workers", "1").returncode == 0
    Path("photos/2.png").rename("photos/1.png")
    assert [Path(name).name for name in found(*asked)["there"]] == ["0-saliency.png"]


def test_workers_may_work_in_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    here = Path.cwd()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    asked = ("saliency", "photos", "sample:grace_hopper", *SMALL)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.chdir(here)
        shared = run(*asked, "-o", "out", "--dask", cluster.scheduler_address)
    alone = run_vizcnn(*asked, "-o", "alone")
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout == alone.stdout.replace("alone/", "out/")
    for path in Path("alone").iterdir():
        assert provenance_in(path) == provenance_in(Path("out") / path.name)


DEADLY = """
import os, torch, vizcnn
from torch import nn

class Deadly(nn.Module):
    def forward(self, x):
        if float(x.detach().min()) > 0.99:
            os._exit(1)
        return x.flatten(1)[:, :2]

def make():
    return vizcnn.Model(Deadly(), size=16)
"""


def test_an_image_that_ends_the_workers_costs_only_those_beside_it() -> None:
    pytest.importorskip("distributed")
    Path("net.py").write_text(DEADLY)
    Image.new("RGB", (24, 20), "white").save("photos/1.png")
    once = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    answer = run("saliency", "photos", *SMALL, "-t", "0", "-o", "out", "--workers", "2", "--json", env=once)
    assert answer.returncode == 3, answer.stderr
    said = json.loads(answer.stdout)
    pictures = sorted(Path(one["file"]).name[0] for one in said["results"])
    lost = sorted(Path(error.split(" was not done")[0]).name[0] for error in said["errors"])
    assert "1" in lost
    assert sorted(pictures + lost) == list("012345")
    assert len(pictures) >= 2  # another image waits beside it, and perhaps one more is handed to its worker
    assert sorted(path.name[0] for path in Path("out").iterdir()) == pictures


def test_a_result_that_ctrl_c_finds_waiting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by what waits for it, and once more when it has stopped."""
    waited = 0
    wait = saving.Saving.wait

    def stop_once(self: saving.Saving) -> saving.Saved:
        nonlocal waited
        waited += 1
        if waited == 1:
            raise KeyboardInterrupt
        return wait(self)

    monkeypatch.setattr(saving.Saving, "wait", stop_once)
    outcomes: list[images.Outcome] = []
    tasks = [images.Task(f"photos/{i}.png", Path(f"{i}.png")) for i in range(2)]
    with pytest.raises(KeyboardInterrupt):
        images.Work(vizcnn.Saliency()).run(vizcnn.load("./net.py:make"), tasks, outcomes.append)
    assert [outcome.task for outcome in outcomes] == tasks[:1]
    assert Path("0.png").exists()


def test_names_for_very_many_images_take_a_look_or_two_at_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = os.stat

    def count_looks(*of: Any, **how: Any) -> os.stat_result:
        nonlocal looks
        looks += 1
        return look(*of, **how)

    Path("many").mkdir()
    Path("out").mkdir()
    files: list[str | None] = [f"many/{i}.png" for i in range(1000)]
    for i, file in enumerate(files):
        os.link("photos/0.png", str(file))
        os.link("photos/1.png", f"out/{i}-cam.png")
    session = Session("cam", Call(out=Path("out")))
    with monkeypatch.context() as changed:
        changed.setattr(os, "stat", count_looks)
        assert session._choose_outputs(files) == [Path(f"out/{i}-cam.png") for i in range(1000)]
    assert looks < 10_000
    Path("out/7-cam.png").unlink()
    os.link("photos/0.png", "out/7-cam.png")
    with pytest.raises(ParameterError, match=r"7-cam.png is an input of this very call"):
        session._choose_outputs(files)


def test_images_that_differ_in_the_ending_only_keep_it_in_the_names_of_their_pictures() -> None:
    Path("photos/5.png").rename("photos/a.heic.png")
    Image.open("photos/4.png").save("photos/4.jpg")
    answer = found("saliency", "photos", *SMALL, "-o", "out")
    assert [Path(one["file"]).name for one in answer["results"]] == [
        f"{name}-saliency.png" for name in ("0", "1", "2", "3", "4.jpg", "4.png", "a.heic")
    ]
    assert len(found("saliency", "photos", *SMALL, "-o", "out")["there"]) == 7
    Path("photos/a.heic.png").rename("photos/4.jpg.png")
    answer = found("saliency", "photos", *SMALL, "-o", "out", code=1)
    assert "several images would be written to out/4.jpg-saliency.png" in answer["errors"][0]


def test_the_help_says_what_is_done_with_many_images() -> None:
    text = " ".join(call("cam", "--help").output.split())
    for said in ("--workers", "--dask ADDRESS", "result of the same call is there already are skipped"):
        assert said in text
    assert "--workers" not in call("filters", "--help").output
    assert "--workers" not in call("top-images", "--help").output


def test_the_help_offers_trust_with_its_price_where_maps_are_made() -> None:
    for name in ("cam", "deconvnet", "occlusion", "rise", "saliency"):
        text = " ".join(call(name, "--help").output.split())
        assert "--trust Say below each map how far it can be believed: 100 more runs" in text
    for name in ("dream", "embed", "feature-maps", "filters", "invert", "layers", "maximize", "style", "top-images"):
        assert "--trust " not in call(name, "--help").output
        answer = call(name, "photos/0.png", "--trust")
        assert (answer.exit_code, "No such option" in answer.output) == (2, True)
