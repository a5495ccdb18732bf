from __future__ import annotations

from pathlib import Path

import pytest

from vizcnn.errors import OutputError
from vizcnn.output import atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")

    def half() -> None:
        with atomic(path) as fresh:
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
    with atomic(path) as fresh:
        fresh.write_text('{"a": 1}')
    assert path.read_text() == '{"a": 1}'
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.json", "a.safetensors", "a.svg", "a.html", "a.pdf", "a.jpg"])
def test_a_file_of_another_kind_is_never_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("my thesis")
    with pytest.raises(OutputError, match="is no .* file by its content; it was left alone"), atomic(path):
        pass
    assert path.read_text() == "my thesis"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), atomic(tmp_path):
        pass
    with pytest.raises(OutputError, match="does not exist. Make it first"), atomic(tmp_path / "no" / "a.png"):
        pass


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def write(fresh: Path) -> None:
        with Path("/dev/full").open("w") as full:
            full.write(str(fresh) * 10000)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(OutputError, match="No space left on device. Nothing was changed"),
        atomic(tmp_path / "a") as fresh,
    ):
        write(fresh)
    assert not list(tmp_path.iterdir())
