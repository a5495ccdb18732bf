from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from support_process import hear_ctrl_c

import vizcnn
from vizcnn.cli.main import main
from vizcnn.models.cost import Cost
from vizcnn.probes.maximize import Maximize
from vizcnn.probing import registry


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


FAST = ("--window", "32", "--stride", "16")


def test_help_is_instant_and_loads_no_torch() -> None:
    code = (
        "import sys; from vizcnn.cli.main import main; main(['--help'], standalone_mode=False)\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "What happens to the answer" in answer.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_probes_help_shows_its_declared_options() -> None:
    text = call("occlusion", "--help").output
    assert "--window" in text
    assert "--fill TEXT" in text
    assert "Zeiler & Fergus 2014" in text


def test_the_main_job(photo_file: Path) -> None:
    answer = call("occlusion", photo_file, *FAST)
    assert answer.exit_code == 0
    assert "covering the" in answer.output
    assert "photo-occlusion.png" in answer.output
    with Image.open("photo-occlusion.png") as picture:
        assert picture.width > 500


def test_the_command_line_and_python_give_the_same_array(photo_file: Path) -> None:
    call(
        "occlusion", photo_file, "--window", "32x16", "--stride", "16x8", "--fill", "blur", "-t", "lemon", "-o", "a.npz"
    )
    python = vizcnn.Occlusion(window=(32, 16), stride=(16, 8), fill="blur")(vizcnn.load("tiny"), photo_file, "lemon")
    np.testing.assert_allclose(np.load("a.npz")["values"], python.values, rtol=1e-5, atol=1e-6)


def test_json_is_one_object(photo_file: Path) -> None:
    answer = call("occlusion", photo_file, *FAST, "-t", "lemon", "-t", "pizza", "--json")
    found = json.loads(answer.stdout)
    assert [m["target"] for m in found["results"][0]["images"][0]["maps"]] == ["lemon", "pizza"]
    assert found["results"][0]["file"] == "photo-occlusion.png"
    assert found["errors"] == []


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(photo_file: Path) -> None:
    answer = call("occlusion", photo_file, *FAST, "--dry-run")
    assert answer.exit_code == 0
    assert "9 windows" in answer.output
    assert "GFLOP" in answer.output
    found = json.loads(call("occlusion", photo_file, *FAST, "--dry-run", "--json", "--engine", "plain").stdout)
    cost = found["results"][0]
    assert cost["flops"] > 1e9
    assert cost["memory"] > 1e6
    assert cost["seconds"] > 0
    assert not list(Path().glob("*-occlusion.png"))


def test_a_dry_run_without_images_says_what_it_would_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Cost("10 pictures", flops=None, memory=None, seconds=1.5)
    monkeypatch.setattr(Maximize, "estimate_cost", lambda *_: cost)
    answer = call("maximize", "lecture", "--dry-run")
    assert answer.exit_code == 0
    assert answer.output == cost.describe() + "\n"


def test_quiet_prints_nothing(photo_file: Path) -> None:
    assert call("occlusion", photo_file, *FAST, "-q").output == ""


LOUD = """
import ctypes, os, vizcnn
from torch import nn
class Loud(nn.Module):
    def forward(self, x):
        print("a network")
        return x.flatten(1)[:, :2]
def network():
    os.system("echo a child")
    ctypes.CDLL(None).puts(b"a library")
    return vizcnn.Model(Loud(), size=8, labels=["a\\x1b[31m", "b"])
"""


@pytest.mark.parametrize("verb", [("saliency",), ("occlusion", "--dry-run"), ("scan",)])
def test_json_and_quiet_keep_stdout_clean_whatever_prints_there(
    photo_file: Path, verb: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("loud.py").write_text(LOUD)
    name, *options = verb
    for option in ("--json", "-q"):
        with pytest.raises(SystemExit) as left:
            main([name, str(photo_file), "-m", "./loud.py:network", *options, option])
        printed, aside = capfd.readouterr()
        assert left.value.code == 0
        if option == "-q":
            assert printed == ""
            assert "a network" not in aside
        else:
            assert json.loads(printed)["errors"] == []
            assert {"a network", "a child", "a library"} <= set(aside.splitlines())


def test_names_cannot_steer_the_terminal(photo_file: Path) -> None:
    Path("loud.py").write_text(LOUD)
    answer = call("saliency", photo_file, "-m", "./loud.py:network", "-t", "0")
    assert answer.exit_code == 0, answer.output
    assert "a\\x1b[31m" in answer.output
    assert "\x1b" not in answer.output


def test_the_good_images_are_done_and_the_bad_ones_reported(photo_file: Path) -> None:
    Path("bad.jpg").write_text("hello")
    answer = call("occlusion", photo_file, "bad.jpg", "gone.jpg", *FAST, "--json")
    assert answer.exit_code == 3
    assert Path("photo-occlusion.png").exists()
    assert not Path("bad-occlusion.png").exists()
    found = json.loads(answer.stdout)
    assert len(found["results"]) == 1
    assert "bad.jpg is not an image" in found["errors"][0]
    assert "gone.jpg does not exist" in found["errors"][1]
    assert "bad.jpg is not an image" in answer.stderr


def test_a_folder_of_images_into_a_folder(photo_file: Path) -> None:
    Path("in").mkdir()
    for name in "ab":
        Path(f"in/{name}.png").write_bytes(photo_file.read_bytes())
    assert call("occlusion", "in", *FAST, "-o", "out").exit_code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["a-occlusion.png", "b-occlusion.png"]
    assert "need a folder to write to, got the file name out.png" in call("occlusion", "in", "-o", "out.png").stderr


def test_two_images_of_one_name_do_not_overwrite_each_other(photo_file: Path) -> None:
    Path("other").mkdir()
    Path("other/photo.png").write_bytes(photo_file.read_bytes())
    answer = call("occlusion", photo_file, "other/photo.png")
    assert answer.exit_code == 1
    assert "several images would be written to photo-occlusion.png" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["oclusion", "x.png"], 2, "no probe named 'oclusion'. Did you mean 'occlusion'?"),
        (["occlusion"], 2, "Missing argument 'IMAGE...'"),
        (["occlusion", "x.png", "--window", "0"], 2, "window must be at least 1 px, got 0"),
        (["occlusion", "x.png", "--window", "wide"], 2, "window must be a side in px such as 32, or HEIGHTxWIDTH"),
        (["occlusion", "x.png", "--window", "²"], 2, "window must be a side in px such as 32, or HEIGHTxWIDTH"),
        (["occlusion", "x.png", "--window", "4", "--stride", "8"], 2, "stride 8 is larger than the window's 4 px"),
        (["occlusion", "x.png", "--seed", "-1"], 2, "-1 is not in the range"),
        (["occlusion", ""], 1, "the image's name is empty"),
        (["occlusion", "x.png"], 1, "x.png does not exist"),
        (["occlusion", "PHOTO", "-m", "resnet19"], 1, "no model named 'resnet19'. Did you mean 'resnet"),
        (["occlusion", "PHOTO", "-t", "lemmon"], 1, "Did you mean 'lemon'?"),
        (["occlusion", "PHOTO", "-t", "layr1:3"], 1, "no layer named 'layr1' in tiny. Did you mean 'layer1'?"),
        (["occlusion", "PHOTO", "-t", "layer1:99"], 1, "layer 'layer1' has channels 0 to 31, got 99"),
        (["occlusion", "PHOTO", "-o", "a.doc"], 1, "cannot save as 'a.doc': the ending must be one of"),
        (["occlusion", "PHOTO", "-o", "no/a.png"], 1, "cannot write no/a.png: the folder no does not exist"),
        (["occlusion", "PHOTO", "-o", "PHOTO"], 1, "is an input of this very call; writing there would destroy it"),
        (["occlusion", "PHOTO", "--device", "nonsense"], 1, "device 'nonsense' cannot be used"),
        (["occlusion", "x" * 300 + ".png"], 1, "File name too long"),
        (["occlusion", "PHOTO", "-o", "x" * 300 + ".png"], 1, "File name too long"),
        (["occlusion", "PHOTO", "-o", "x" * 300], 1, "cannot make the folder"),
        (["occlusion", "a\nb.png"], 1, "b.png does not exist"),
        (["occlusion", "PHOTO", "-m", "x" * 300], 1, "no model named"),
    ],
)
def test_errors_are_one_line(photo_file: Path, arguments: list[str], code: int, message: str) -> None:
    answer = call(*[str(photo_file) if a == "PHOTO" else a for a in arguments])
    assert message in answer.stderr
    assert answer.exit_code == code
    assert "Traceback" not in answer.output
    if code == 1:
        assert answer.stderr.count("\n") == 1


def test_a_network_that_raises_is_one_line_and_a_traceback_with_debug(photo_file: Path) -> None:
    Path("broken.py").write_text(
        "import vizcnn\nfrom torch import nn\ndef network(): return vizcnn.Model(nn.Linear(3, 2), size=8)\n"
    )
    answer = call("occlusion", photo_file, "-m", "./broken.py:network")
    assert answer.exit_code == 1
    assert "Occlusion on Linear: input (1, 3, 8, 8): the network itself fails on images (1, 3, 8, 8)" in answer.stderr
    assert "mat1 and mat2 shapes cannot be multiplied" in answer.stderr  # some versions of torch put more in front
    assert answer.stderr.count("\n") == 1
    debugged = call("occlusion", photo_file, "-m", "./broken.py:network", "--debug")
    assert isinstance(debugged.exception, RuntimeError)


SLOW = """
import time, vizcnn
from torch import nn
class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return x.flatten(1)[:, :2]
def network(): return vizcnn.Model(Slow(), size=32)
"""


def test_ctrl_c_keeps_what_was_computed_and_exits_130(photo_file: Path) -> None:
    Path("slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "vizcnn", "occlusion", str(photo_file), "-m", "./slow.py:network", "-t", "0"]
    options = ["--window", "4", "--stride", "1", "--batch", "1", "--json"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c
    ) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # the progress bar has appeared, two seconds into the sweep
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(output)["results"][0]["partial"] is True
    assert Path("photo-occlusion.png").exists()


def test_progress_appears_on_stderr_only_for_what_takes_long(photo_file: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "vizcnn", "occlusion", str(photo_file), *FAST],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "window/s" not in answer.stderr


def test_an_output_without_an_ending_is_a_folder_for_one_image_too(photo_file: Path) -> None:
    assert call("occlusion", photo_file, *FAST, "-o", "out").exit_code == 0
    assert Path("out/photo-occlusion.png").exists()
    Path("plain").write_text("my notes")
    answer = call("occlusion", photo_file, *FAST, "-o", "plain")
    assert "cannot make the folder plain: File exists" in answer.stderr
    assert Path("plain").read_text() == "my notes"


@pytest.fixture
def mine() -> dict[str, torch.Tensor]:
    """The weights of a network that `./mine.py:network` gives."""
    Path("mine.py").write_text(
        "import torch, vizcnn\n"
        "def network(): return vizcnn.Model(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), size=16)\n"
    )
    return dict(vizcnn.load("./mine.py:network").network.state_dict())


@pytest.mark.parametrize("command", ["filters", "scan"])
def test_what_loading_took_off_and_ignored_is_said_unless_quiet(command: str, mine: dict[str, torch.Tensor]) -> None:
    state = {f"model.{name}": value for name, value in mine.items()} | {"loss.weight": torch.ones(1)}
    torch.save({"state_dict": state}, "a.ckpt")
    Path("images").mkdir()
    Image.new("RGB", (16, 16)).save("images/a.png")
    arguments = ["filters", "-o", "f.png"] if command == "filters" else ["scan", "images", "-o", "index"]
    spec = "./mine.py:network@a.ckpt"
    said = f"vizcnn: {spec}: weights found under 'state_dict' without the prefix 'model.'; ignored loss.weight\n"
    assert said in call(*arguments, "-m", spec).stderr
    answer = call(*arguments, "-m", spec, "--json")
    assert said in answer.stderr
    assert not json.loads(answer.stdout)["errors"]
    assert call(*arguments, "-m", spec, "-q").stderr == ""


@pytest.mark.parametrize("command", ["filters", "scan"])
def test_pickles_of_other_classes_are_read_only_when_they_are_trusted(
    command: str, mine: dict[str, torch.Tensor]
) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": mine}, "a.pth")
    Path("images").mkdir()
    Image.new("RGB", (16, 16)).save("images/a.png")
    arguments = ["filters", "-o", "f.png"] if command == "filters" else ["scan", "images", "-o", "index"]
    refused = call(*arguments, "-m", "./mine.py:network@a.pth")
    assert refused.exit_code == 1
    assert "would run code that it names (argparse.Namespace)" in refused.stderr
    assert "give --trust-pickle" in refused.stderr
    assert call(*arguments, "-m", "./mine.py:network@a.pth", "--trust-pickle").exit_code == 0


def test_a_network_to_compare_with_is_trusted_as_the_first_one_is(mine: dict[str, torch.Tensor]) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": mine}, "a.pth")
    arguments = ("filters", "./mine.py:network", "--compare", "./mine.py:network@a.pth", "-o", "f.png")
    assert "give --trust-pickle" in call(*arguments).stderr
    answer = call(*arguments, "--trust-pickle")
    assert answer.exit_code == 0
    assert "./mine.py:network@a.pth: weights found under 'state_dict'" in answer.stdout


def test_the_weights_in_use_are_never_overwritten(photo_file: Path) -> None:
    Path("n.py").write_text(
        "import vizcnn, torch\nfrom torch import nn\n"
        "def f(): return vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), size=8)\n"
    )
    save_file({"1.weight": torch.ones(2, 192), "1.bias": torch.ones(2)}, "w.safetensors")
    before = Path("w.safetensors").read_bytes()
    for name in ("w.safetensors", "w.safetensors#ema"):
        answer = call("occlusion", photo_file, "-m", f"./n.py:f@{name}", "-o", "w.safetensors")
        assert answer.exit_code == 1
        assert "is an input of this very call" in answer.stderr
        assert Path("w.safetensors").read_bytes() == before


def test_what_cannot_be_written_is_known_before_anything_is_computed(photo_file: Path) -> None:
    Path("photo-occlusion.png").write_text("my thesis")
    answer = call("occlusion", photo_file, "-m", "no_such_model")
    assert "is no .png file by its content; it was left alone" in answer.stderr


def test_a_second_run_over_a_folder_leaves_its_own_pictures_out(photo_file: Path) -> None:
    assert photo_file.parent == Path.cwd()
    for _ in range(2):
        assert call("occlusion", ".", *FAST).exit_code == 0
    assert sorted(p.name for p in Path().glob("*.png")) == ["photo-occlusion.png", "photo.png"]


def test_a_closed_pipe_is_not_reported_as_a_failed_image(photo_file: Path) -> None:
    line = f"{sys.executable} -m vizcnn occlusion {photo_file} --window 32 --stride 16 | head -n 0"
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert "BrokenPipe" not in answer.stderr
    assert Path("photo-occlusion.png").exists()


def test_ctrl_c_says_what_was_kept_and_where() -> None:
    command = [sys.executable, "-m", "vizcnn", "maximize", "lecture", "conv1:3", "--steps", "1000000", "-o", "x.png"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    ) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # the progress bar has appeared
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped early: 1 of 1 pictures, as far as they got\n  x.png" in output
    assert Path("x.png").exists()


def test_an_early_ctrl_c_exits_130_too() -> None:
    code = (
        "import vizcnn.probing.registry as r\n"
        "def get(name): raise KeyboardInterrupt\n"
        "r.get = get\n"
        "from vizcnn.cli.main import main; main(['occlusion', 'x.png'])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 130
    assert "Traceback" not in answer.stderr


def test_a_warning_is_one_line(photo_file: Path) -> None:
    Path("soft.py").write_text(
        "import vizcnn\nfrom torch import nn\n"
        "def f(): return vizcnn.Model(nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Softmax(1)), size=8)\n"
    )
    answer = call("saliency", photo_file, "-m", "./soft.py:f", "-t", "1")
    assert answer.exit_code == 0
    assert answer.stderr.startswith("vizcnn: warning: the target of Sequential is a probability")
    assert answer.stderr.count("\n") == 1


def test_a_warning_that_many_images_give_is_said_once() -> None:
    Path("photos").mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8), 4000 >> i, np.uint16)).save(f"photos/{i}.png")
    answer = call("scan", "photos", "-o", "index", "-q")
    assert answer.exit_code == 0
    assert answer.stderr.count("no sample of an image is above 16383") == 1


SOON = ("--steps", "2", "--size", "24")


def test_a_network_and_what_is_asked_of_it_stand_without_a_dash() -> None:
    answer = call("maximize", "lecture", "conv1:0-3", "--steps", "2", "-o", "x.png", "--json")
    assert answer.exit_code == 0, answer.output
    record = json.loads(answer.stdout)["results"][0]["provenance"]
    assert record["model"] == "lecture"
    assert record["targets"] == [["conv1:0", "conv1:1", "conv1:2", "conv1:3"]]
    assert record["options"]["steps"] == 2
    with Image.open("x.png") as picture:
        assert picture.width > 300


def test_targets_with_and_without_a_dash_add_up() -> None:
    answer = call("maximize", "tiny", "conv1:1", 7, "-t", "golden retriever", *SOON, "-o", "x.npz", "--json")
    assert answer.exit_code == 0, answer.output
    record = json.loads(answer.stdout)["results"][0]["provenance"]
    assert [record["targets"][0][0], record["targets"][0][2]] == ["conv1:1", "golden retriever"]
    assert record["target_specs"][0][1] == "7"
    with np.load("x.npz") as saved:
        assert saved["reached"].shape == (3,)
        assert saved["pictures"].shape[1:] == (24, 24, 3)


def test_a_class_may_be_named_alone() -> None:
    answer = call("maximize", "tiny", "--target", "golden retriever", *SOON, "-o", "x.png")
    assert answer.exit_code == 0, answer.output
    assert "golden retriever" in answer.output


def test_probes_of_the_network_alone_take_it_without_a_dash() -> None:
    plain, dashed = call("filters", "lecture", "-o", "a.npz", "--json"), call("filters", "-m", "lecture", "-o", "b.npz")
    assert plain.exit_code == dashed.exit_code == 0, plain.output
    assert json.loads(plain.stdout)["results"][0]["provenance"]["model"] == "lecture"
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name]) for name in a.files if name not in ("manifest", "vizcnn"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["filters", "lecture", "-m", "tiny"], 2, "two models were given: lecture and -m tiny. Leave one out"),
        (["maximize", "conv1:0-99", "-m", "lecture", "--steps", "1"], 1, "layer 'conv1' has channels 0 to"),
        (["filters", "lectur"], 1, "no model named 'lectur'. Did you mean 'lecture'?"),
        (["maximize", "lecture", "conv1:0-99", "--steps", "1"], 1, "layer 'conv1' has channels 0 to"),
        (["maximize", "lecture", "conv1:3-1"], 1, "goes from the lower to the higher"),
        (["maximize", "lecture", "--preset", "lucit"], 2, "Did you mean 'lucid'?"),
        (["maximize", "lecture", "--like", "mnist"], 2, "like is for the recipe maco"),
        (["maximize", "lecture", "--diversity", "1"], 2, "it needs copies of 2 or more"),
        (["maximize", "no_such_model", "-o", "x.gif"], 1, "x.gif would be an animation"),
        (["dream", "PHOTO", "-m", "no_such_model", "-o", "x.gif"], 1, "--frames 24"),
        (["maximize", "no_such_model", "--frames", "2", "-o", "x.png"], 1, "x.png would lose the frames"),
        (["style", "PHOTO", "-m", "no_such_model", "-o", "x.gif"], 1, "--frames 24"),
        (["style", "PHOTO", "--size", "24", "--like", "gone.png"], 1, "gone.png does not exist"),
    ],
)
def test_errors_of_pictures_are_one_line(photo_file: Path, arguments: list[str], code: int, message: str) -> None:
    answer = call(*[str(photo_file) if a == "PHOTO" else a for a in arguments])
    assert message in answer.stderr
    assert answer.exit_code == code
    assert "Traceback" not in answer.output
    assert not list(Path().glob("x.*"))


def test_animations_from_the_command_line(photo_file: Path) -> None:
    asked = ("--steps", "4", "--frames", "2", "-q")
    assert call("maximize", "lecture", "conv1:0-1", *asked, "-o", "a.gif").exit_code == 0
    assert call("dream", photo_file, "-t", "energy(conv1)", *asked, "-o", "b.gif").exit_code == 0
    assert call("style", photo_file, "--size", "32", "--like", photo_file, *asked, "-o", "c.gif").exit_code == 0
    assert call("maximize", "lecture", "conv1:0-1", *asked).exit_code == 0
    for name in ("a", "b", "c", "maximize"):
        with Image.open(f"{name}.gif") as film:
            assert film.format == "GIF"


@pytest.mark.parametrize("name", registry.list_names())
def test_formulas_tables_and_examples_keep_their_lines_in_the_help(name: str) -> None:
    said = call(name, "--help").output.splitlines()
    text = registry.get(name).__doc__ or ""
    assert text == inspect.cleandoc(text)  # on every Python: newer ones take the indentation away by themselves
    own = text.split("\nOptions:")[0].splitlines()
    kept = [line.strip() for line in own if line.startswith(" " * 4) or re.search(r"\S {2,}\S", line)]
    assert len(kept) > 3
    assert not set(kept) - {line.strip() for line in said}


def test_no_command_imports_before_it_runs_what_complains_when_it_ends() -> None:
    """The start of a command hides what it imports from Python's collector, and triton then says what it leaked."""
    code = """
import sys
from vizcnn.cli.main import make_command
from vizcnn.probing import registry
for name in registry.list_names():
    make_command(name)
print("torch" in sys.modules, "triton" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", "False"]


def test_the_help_of_target_says_what_it_is_by_default() -> None:
    for probe, said in (("occlusion", "the predicted class"), ("dream", "as above"), ("maximize", "as above")):
        assert f"default: {said}." in " ".join(call(probe, "--help").output.split())


def test_a_dream_is_written_as_the_picture_itself(photo_file: Path) -> None:
    assert call("dream", photo_file, "-t", "energy(conv1)", "--steps", "1").exit_code == 0
    with Image.open("photo-dream.png") as picture:
        assert picture.size == (90, 60)


# --- standard input, addresses ----------------------------------------------------------------------------------------


def send(data: bytes, *arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=data)


def test_a_dash_is_the_image_that_standard_input_holds(photo_file: Path) -> None:
    answer = send(photo_file.read_bytes(), "saliency", "-", "--json")
    assert answer.exit_code == 0, answer.output
    (found,) = json.loads(answer.stdout)["results"]
    assert found["provenance"]["images"] == [["stdin", vizcnn.open_photo(photo_file).sha256()]]
    assert found["file"] == "stdin-saliency.png"
    assert Path("stdin-saliency.png").exists()
    both = send(photo_file.read_bytes(), "embed", "-", photo_file)  # one call for all images
    assert "all 2 images have the same features" in both.stderr
    assert send(photo_file.read_bytes(), "occlusion", "-", "--dry-run").output.startswith("-: ")


@pytest.mark.parametrize(
    ("data", "images", "code", "said"),
    [
        (b"", ["-"], 1, "- is an image that standard input holds, and it is empty. Send an image to it"),
        (b"hello", ["-"], 1, "stdin is not an image in a format that Pillow reads"),
        (None, ["-", "-"], 3, "- is named twice, and standard input holds one image. Name it once"),
    ],
)
def test_what_standard_input_cannot_be(
    photo_file: Path, data: bytes | None, images: list[str], code: int, said: str
) -> None:
    answer = send(photo_file.read_bytes() if data is None else data, "saliency", *images)
    assert answer.exit_code == code
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_terminal_is_no_image() -> None:
    """Else the program would wait for a person to type one."""
    master, terminal = os.openpty()
    program = [sys.executable, "-m", "vizcnn", "saliency", "-"]
    done = subprocess.run(program, stdin=terminal, capture_output=True, text=True, timeout=120, check=False)
    os.close(master)
    os.close(terminal)
    assert done.returncode == 1
    assert "nothing is sent to it" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["cam", "https://example.org/a.jpg"],
        ["scan", "https://example.org/a.zip"],
        ["embed", "s3://bucket/photos/"],
        ["layers", "https://example.org/net.pth"],
        ["layers", "-m", "resnet18@https://example.org/net.pth"],
        ["layers", "-m", "https://example.org/net.py:network"],
    ],
)
def test_an_address_of_the_web_gets_a_sentence_of_its_own(arguments: list[str]) -> None:
    answer = call(*arguments)
    assert answer.exit_code == 1
    address = next(part for part in arguments[-1].split("@") if "://" in part)
    assert f"{address} is an address, and only files are read here. Download it first" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
