from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vizcnn.errors import OutputError
from vizcnn.output import write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")

    def half() -> None:
        with write_whole(path) as fresh:
            fresh.write_text("{half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        half()
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_its_own_kind_is_replaced_with_ordinary_permissions(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b"
    path.write_text("{}")
    other.touch()
    with write_whole(path) as fresh:
        fresh.write_text('{"a": 1}')
    assert path.read_text() == '{"a": 1}'
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_an_existing_file_keeps_its_permissions_and_is_at_no_time_more_open(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(mode)
    os.utime(path, (0, 0))
    with write_whole(path) as fresh:
        fresh.write_text("[]")
        assert fresh.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "[]"
    assert path.stat().st_mode & 0o777 == mode
    assert time.time() - path.stat().st_mtime < 60  # of now, not of the old file


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link, dangling = folder / "old.json", tmp_path / "link.json", tmp_path / "dangling.json"
    target.write_text("{}")
    target.chmod(0o600)
    link.symlink_to("elsewhere/old.json")
    dangling.symlink_to(folder / "new.json")
    for path, content in ((link, "[1]"), (dangling, "[2]")):
        with write_whole(path) as fresh:
            assert fresh.parent == folder
            fresh.write_text(content)
        assert path.is_symlink()
    assert target.read_text() == "[1]"
    assert target.stat().st_mode & 0o777 == 0o600
    assert (folder / "new.json").read_text() == "[2]"
    assert sorted(each.name for each in folder.iterdir()) == ["new.json", "old.json"]


def test_links_that_lead_nowhere_or_to_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.json").write_text("my thesis")
    for name, leads_to, message in (
        ("a.json", "a.json", "cannot write .*a.json: Too many levels of symbolic links"),
        ("b.json", "no/c.json", "the folder .*/no does not exist. Make it first"),
        ("d.json", "thesis.json", "is no .json file by its content; it was left alone"),
    ):
        (tmp_path / name).symlink_to(leads_to)
        with pytest.raises(OutputError, match=message), write_whole(tmp_path / name):
            pass
        assert (tmp_path / name).is_symlink()


@pytest.mark.parametrize("mode", [0o400, 0o444])
def test_a_read_only_file_is_left_alone_also_by_root(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(mode)
    with (
        pytest.raises(OutputError, match="a.json is read-only; it was left alone. Make it writable"),
        write_whole(path),
    ):
        pass
    assert path.read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 300, "File name too long"), ("a\0b", "embedded null"), ("no\nsuch/a", "no such/a")],
)
def test_impossible_names_are_one_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message) as caught, write_whole(tmp_path / f"{name}.png"):
        pass
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a\nb.json", "x" * 250 + ".json", "猫.json"])
def test_unusual_names_are_names(tmp_path: Path, name: str) -> None:
    for content in ("{}", "[]"):
        with write_whole(tmp_path / name) as fresh:
            fresh.write_text(content)
    assert (tmp_path / name).read_text() == "[]"


WRITING = """
import sys, pathlib, vizcnn.output as output
if len(sys.argv) > 2:
    output.socket.gethostname = lambda: sys.argv[2]
with output.write_whole(pathlib.Path(sys.argv[1])) as fresh:
    fresh.write_text("{half")
    print(fresh.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing(path: Path, *host: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process in the middle of writing a file, and the name of what it has unfinished."""
    command = [sys.executable, "-c", WRITING, str(path), *host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_what_a_killed_process_has_left_is_removed_by_the_next_write_beside_it_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with writing(path) as (alive, unfinished), writing(path) as (killed, left):
        killed.kill()
        killed.wait()
        mine = unfinished.replace(str(alive.pid), str(killed.pid))
        foreign = [".vizcnn-notes.json", f"{left}.bak", f"x{left}", left.replace("-", "_"), ".a-x1y2z3.json"]
        for name in foreign:
            (tmp_path / name).write_text("mine")
        (tmp_path / mine.replace(".json", ".png")).mkdir()
        (tmp_path / mine.replace(".json", ".svg")).symlink_to(path)
        with write_whole(path) as fresh:
            fresh.write_text("{}")
        kept = {*foreign, unfinished, mine.replace(".json", ".png"), mine.replace(".json", ".svg"), "a.json"}
        assert {each.name for each in tmp_path.iterdir()} == kept
        alive.communicate()
        assert alive.returncode == 0
    assert path.read_text() == "{half"


def test_what_is_left_by_another_machine_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with writing(path, "another") as (killed, left):
        killed.kill()
        killed.wait()
        with write_whole(path) as fresh:
            fresh.write_text("{}")
        assert {each.name for each in tmp_path.iterdir()} == {left, "a.json"}


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.json", "a.safetensors", "a.svg", "a.html", "a.pdf", "a.jpg"])
def test_a_file_of_another_kind_is_never_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("my thesis")
    with pytest.raises(OutputError, match="is no .* file by its content; it was left alone"), write_whole(path):
        pass
    assert path.read_text() == "my thesis"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), write_whole(tmp_path):
        pass
    with pytest.raises(OutputError, match="does not exist. Make it first"), write_whole(tmp_path / "no" / "a.png"):
        pass


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def write(fresh: Path) -> None:
        with Path("/dev/full").open("w") as full:
            full.write(str(fresh) * 10000)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(OutputError, match="No space left on device. Nothing was changed"),
        write_whole(tmp_path / "a") as fresh,
    ):
        write(fresh)
    assert not list(tmp_path.iterdir())
