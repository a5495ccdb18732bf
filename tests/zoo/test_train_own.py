"""Transfer learning on a person's own folder, here of drawn images: bars that lie, and bars that stand."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support_process import hear_ctrl_c

import vizcnn
from vizcnn.cli.main import main as vizcnn_main
from vizcnn.errors import ImageError, OutputError, ParameterError, VizcnnError
from vizcnn.models.sources.bundled import find_card
from vizcnn.zoo import train_own
from vizcnn.zoo.own_images import Examples, read_examples, split_examples
from vizcnn.zoo.train_own import Lesson, Recipe, begin, find_last, main, replace_last, shift, teach


def draw_bars(folder: Path, counts: dict[str, int]) -> Path:
    """Grey images of 28 x 28 px with a bright bar at a random place: standing in `standing`, else lying."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 60, (28, 28)).astype(np.uint8)
            at, start = random.integers(4, 22), random.integers(2, 8)
            pixels[at : at + 3, start : start + 16] = 255
            Image.fromarray(pixels.T if name == "standing" else pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_bars(tmp_path_factory.mktemp("bars"), {"lying": 20, "standing": 15})


@pytest.fixture(scope="module")
def taught(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file that one command leaves, and what it prints."""
    out = tmp_path_factory.mktemp("the file") / "bars.safetensors"
    with redirect_stdout(StringIO()) as said:
        main([str(bars), "--out", str(out), "--network", "lecture", "--last", "12", "--all", "2"])
    return out, said.getvalue()


def read_bars(bars: Path) -> Examples:
    return read_examples(bars, vizcnn.load("lecture").input, progress=False)


def test_one_command_leaves_a_network_that_knows_the_classes(bars: Path, taught: tuple[Path, str]) -> None:
    out, _ = taught
    model = vizcnn.load(str(out))
    assert model.labels == ("lying", "standing")
    assert model.input == vizcnn.load("lecture").input
    examples = read_bars(bars)
    with torch.no_grad():
        right = (model(examples.inputs).argmax(1) == examples.labels).float().mean()
    assert right > 0.9


def test_a_probe_explains_it_by_its_classes(bars: Path, taught: tuple[Path, str], tmp_path: Path) -> None:
    image, out = str(bars / "standing" / "0.png"), tmp_path / "map.npz"
    call = ["occlusion", image, "-m", str(taught[0]), "-t", "standing", "--window", "7", "-o", str(out)]
    answer = CliRunner().invoke(vizcnn_main, call)
    assert answer.exit_code == 0, answer.output
    assert "standing" in answer.output
    assert vizcnn.load_result(out).provenance.model == "bars.safetensors"


def test_the_stated_accuracy_is_that_of_the_file(bars: Path, taught: tuple[Path, str]) -> None:
    out, said = taught
    card = find_card(out)
    assert card is not None
    _, held = split_examples(read_bars(bars), 0.2, seed=0)
    with torch.no_grad():
        right = int((vizcnn.load(str(out))(held.inputs).argmax(1) == held.labels).sum())
    assert card["accuracy"]["top1"] == round(100 * right / len(held), 2)
    assert f"names {100 * right / len(held):.1f}% of 7 held-out images rightly" in said


def test_the_command_that_is_offered_names_the_file_also_with_a_space_in_its_name(taught: tuple[Path, str]) -> None:
    out, said = taught
    assert shlex.split(said.partition("Look at an image with: ")[2]) == ["vizcnn", "occlusion", "IMAGE", "-m", str(out)]


def test_each_epoch_is_told_and_drawn(taught: tuple[Path, str]) -> None:
    out, said = taught
    assert (
        "2 classes, 35 images: 28 teach, 7 are held out. Whoever always names the commonest class is right for" in said
    )
    lines = [line for line in said.splitlines() if line.startswith("epoch")]
    assert ["last layer" in line for line in lines] == [True] * 12 + [False] * 2
    assert all("% of the held-out images (" in line for line in lines)
    origin = vizcnn.inputs.provenance_in(out.with_suffix(".png"))
    assert origin is not None
    assert origin["weights_sha256"] == vizcnn.load(str(out)).weights_sha256()


def run(examples: Examples, recipe: Recipe, name: str = "lecture") -> Lesson:
    lesson = begin(examples, name, recipe)
    lesson.run(lambda _: None, progress=False)
    return lesson


def test_the_same_seed_gives_the_same_network(bars: Path) -> None:
    examples = read_bars(bars)
    before = torch.random.get_rng_state()
    one, same, other = (run(examples, Recipe(last=2, all=1, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.epochs == same.epochs
    weights = [lesson.network.get_parameter("fc2.weight") for lesson in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_first_only_the_last_layer_learns_then_all(bars: Path) -> None:
    examples, usual = read_bars(bars), vizcnn.load("lecture").network
    first = run(examples, Recipe(last=2, all=0))
    for name, value in usual.state_dict().items():
        if not name.startswith("fc2"):
            assert torch.equal(first.network.state_dict()[name], value)
    seen: list[bool] = []

    def look(lesson: Lesson) -> None:
        weights = lesson.network.get_parameter("conv1.weight")
        seen.append(torch.equal(weights, usual.get_parameter("conv1.weight")))

    begin(examples, "lecture", Recipe(last=1, all=1, rate=1e-3)).run(look, progress=False)
    assert seen == [True, False]


@pytest.mark.parametrize("name", ["lecture", "simple", "tiny", "eleven"])
def test_bottleneck_features_are_what_arrives_at_the_last_layer(name: str) -> None:
    model = vizcnn.load(name)
    inputs = torch.rand(10, model.input.channels, *model.input.size, generator=torch.Generator().manual_seed(0))
    examples = Examples(inputs, torch.arange(10) % 2, ("a", "b"))
    lesson = begin(examples, name, Recipe())
    features = lesson.compute_features(inputs)
    last = model.network.get_submodule(find_last(model.network))
    with torch.no_grad():
        torch.testing.assert_close(last(features), model(inputs), rtol=1e-4, atol=1e-4)


def test_the_best_epoch_is_kept(bars: Path) -> None:
    """A rate that ruins the network in the second stage leaves what the first has learned."""
    lesson = run(read_bars(bars), Recipe(last=12, all=2, rate=1.0))
    best = max(lesson.epochs, key=lambda epoch: (epoch.right, -epoch.loss))
    assert lesson.best_one == best
    assert best.stage == "last layer"
    held = lesson.held
    with torch.no_grad():
        assert int((lesson.network(lesson.normalise(held.inputs)).argmax(1) == held.labels).sum()) == best.right


def test_a_new_last_layer_has_no_opinion() -> None:
    network = vizcnn.load("tiny").network
    replace_last(network, 3)
    with torch.no_grad():
        assert torch.equal(network(torch.rand(2, 3, 64, 64)), torch.zeros(2, 3))


def test_images_are_shifted_and_nothing_else() -> None:
    ramp = torch.arange(16.0).repeat(16, 1).add(torch.arange(16.0)[:, None] * 100)[None, None]  # (1, 1, 16, 16)
    moved = shift(ramp.expand(50, 1, 16, 16), torch.Generator().manual_seed(0))
    offsets = {(moved[i, 0, 8, 8] - ramp[0, 0, 8, 8]).item() for i in range(50)}
    assert offsets == {down * 100 + right for down in (-1, 0, 1) for right in (-1, 0, 1)}
    inner = moved[:, 0, 2:14, 2:14] - ramp[0, 0, 2:14, 2:14]
    assert all(len(one.unique()) == 1 for one in inner)


def test_a_part_of_each_class_is_held_out_and_never_taught(bars: Path) -> None:
    examples = read_bars(bars)
    taught, held = split_examples(examples, 0.2, seed=0)
    assert torch.bincount(held.labels).tolist() == [4, 3]
    assert torch.bincount(taught.labels).tolist() == [16, 12]
    apart = (taught.inputs[:, None] != held.inputs[None]).flatten(2).any(2)
    assert bool(apart.all())


def test_what_is_no_example_is_left_out_with_the_reason(tmp_path: Path) -> None:
    bars = draw_bars(tmp_path, {"lying": 6, "standing": 6})
    shutil.copy(bars / "lying" / "0.png", bars / "lying" / "again.png")
    shutil.copy(bars / "lying" / "0.png", bars / "loose.png")
    (bars / "standing" / "broken.png").write_bytes(b"no picture")
    examples = read_bars(bars)
    assert len(examples) == 12
    said = "\n".join(examples.left_out)
    assert len(examples.left_out) == 3
    assert "lying/again.png is the same image as lying/0.png" in said
    assert "loose.png lies in no sub-folder of a class" in said
    assert "broken.png" in said


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        ({}, ImageError, "holds no images"),
        (
            {"lying": 8},
            ParameterError,
            "has images of one class, lying, and two are the fewest. Put those of each",
        ),
        ({"lying": 8, "standing": 4}, ParameterError, "has 4 images of standing, and 5 are the fewest that a class"),
    ],
)
def test_too_little_to_learn_from_is_refused(
    counts: dict[str, int], error: type[VizcnnError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read_bars(draw_bars(tmp_path, counts))


def test_an_image_in_two_classes_is_refused(tmp_path: Path) -> None:
    bars = draw_bars(tmp_path, {"lying": 6, "standing": 6})
    shutil.copy(bars / "lying" / "0.png", bars / "standing" / "x.png")
    with pytest.raises(ParameterError, match="lying/0.png and standing/x.png are the same image in two classes"):
        read_bars(bars)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"last": 0}, "epochs: 1 or more"), ({"held_out": 0.9}, "at most 0.5, got 0.9"), ({"rate": -1.0}, "are positive")],
)
def test_bad_recipes(options: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Recipe(**options)  # type: ignore[arg-type]


def test_a_foreign_file_is_left_alone(bars: Path, taught: tuple[Path, str], tmp_path: Path) -> None:
    """Before anything is computed; what the command has left itself is replaced."""
    foreign, photo = tmp_path / "mine.safetensors", tmp_path / "photo.png"
    shutil.copy(Path(vizcnn.__file__).parent / "zoo" / "simple.safetensors", foreign)
    Image.new("RGB", (4, 4)).save(photo)
    before = foreign.read_bytes(), photo.read_bytes()
    for out, message in {
        foreign: "mine.safetensors exists and is not of vizcnn.zoo.train_own; it was left alone",
        photo.with_suffix(".safetensors"): "photo.png exists and is no curve of vizcnn.zoo.train_own",
        tmp_path / "none" / "x.safetensors": "the folder .*none does not exist",
    }.items():
        with pytest.raises(OutputError, match=message):
            teach(bars, "lecture", out, Recipe())
    with pytest.raises(ParameterError, match="a file ending in .safetensors, got"):
        teach(bars, "lecture", tmp_path / "x.pth", Recipe())
    assert (foreign.read_bytes(), photo.read_bytes()) == before
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["mine.safetensors", "photo.png"]
    own = Path(shutil.copy(taught[0], tmp_path / "own.safetensors"))
    assert not teach(bars, "lecture", own, Recipe(last=1, all=0))


def test_an_error_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.safetensors")])
    assert str(caught.value).startswith("train_own: ")
    assert "\n" not in str(caught.value)


def test_ctrl_c_keeps_the_best_so_far(bars: Path, tmp_path: Path) -> None:
    out = tmp_path / "early.safetensors"
    command = [sys.executable, "-u", "-m", "vizcnn.zoo.train_own", str(bars), "--out", str(out)]
    command += ["--network", "lecture", "--last", "5", "--all", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   7"):
                os.kill(process.pid, signal.SIGINT)
                break
        said = process.stdout.read()
    assert process.returncode == 130
    assert "kept: epoch" in said
    assert vizcnn.load(str(out)).labels == ("lying", "standing")
    origin = vizcnn.inputs.provenance_in(out.with_suffix(".png"))
    assert origin is not None
    assert origin["partial"]


def test_a_single_epoch_is_no_curve_and_the_file_is_named_all_the_same(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "short.safetensors"
    main([str(bars), "--out", str(out), "--network", "lecture", "--last", "1", "--all", "0"])
    assert f"{out}. Look at an image with" in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == [out]


def test_ctrl_c_before_the_first_epoch_writes_nothing(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_own.Lesson, "compute_features", stop)
    with pytest.raises(SystemExit) as caught:
        main([str(bars), "--out", str(tmp_path / "x.safetensors"), "--network", "lecture"])
    assert caught.value.code == 130
    assert "stopped before there was anything to keep" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
