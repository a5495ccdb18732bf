"""What is read of a checkpoint: the state_dicts in it, wherever they stand, and no code."""

from __future__ import annotations

import argparse
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vizcnn.errors import WeightsError
from vizcnn.models.checkpoints import read_weights
from vizcnn.models.numpy_numbers import allow_numpy_numbers


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


def save(content: Any, folder: Path, **how: Any) -> Path:
    torch.save(content, folder / "a.pth", **how)
    return folder / "a.pth"


def places(file: Path, **how: Any) -> list[str]:
    return [state.place for state in read_weights(file, **how)]


STATE = small().state_dict()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "weights", "state_dict_ema", "ema"])
def test_a_state_dict_is_found_under_any_key_and_keeps_its_versions(key: str, tmp_path: Path) -> None:
    for content, place in (({key: STATE, "epoch": 3}, key), ({"a": {key: STATE}}, f"a.{key}"), (STATE, "")):
        (found,) = read_weights(save(content, tmp_path))
        assert found.place == place
        assert found.tensors.keys() == STATE.keys()
        assert all(torch.equal(found.tensors[name], value) for name, value in STATE.items())
        assert found.versions == {"": 1, "0": 1, "1": 2}


BESIDE = {
    "epoch": 3, "accuracy": 0.93, "name": "mine", "none": None, "done": True, "sizes": (1, 2), "classes": ["a", "b"],
    "nested": {"lr": [0.1, {"decay": 1e-4}], 7: "seven"}, "ordered": OrderedDict(a=1), "tags": {"x"},
    "best": np.float64(0.5), "count": np.int64(7), "flag": np.bool_(True), "big": np.array([2.5], ">f4")[0],
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
def test_numbers_strings_lists_and_dicts_beside_the_weights_are_read(tmp_path: Path, old: bool) -> None:
    file = save({**BESIDE, "state_dict": STATE}, tmp_path, _use_new_zipfile_serialization=not old)
    assert places(file) == ["state_dict"]


def test_numbers_of_numpy_are_read_as_they_are_and_torch_takes_them_for_unsafe_again(tmp_path: Path) -> None:
    file = save({**BESIDE, "state_dict": STATE}, tmp_path)
    before = torch.serialization.get_safe_globals()
    with allow_numpy_numbers():
        found = torch.load(file, weights_only=True)
    assert [found[key] for key in ("best", "count", "flag", "big")] == [0.5, 7, True, 2.5]
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(Exception, match="numpy"):
        torch.load(file, weights_only=True)


def test_threads_read_numbers_of_numpy_side_by_side(tmp_path: Path) -> None:
    file = save({"best": np.float64(0.5), "state_dict": STATE}, tmp_path)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.extend(places(file) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["state_dict"]] * 80


class OfMine:
    """A class that a checkpoint may hold; it notes that it was made."""

    made = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        OfMine.made += 1


def of_mine() -> OfMine:
    found = OfMine()
    found.__dict__["a"] = 1
    return found


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (Path("a"), "pathlib"),
        (of_mine(), "test_checkpoints.OfMine"),
        (np.ones(2), "numpy"),
        (np.datetime64("2020-01-01"), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_classes_are_refused_with_the_way_to_trust_them(beside: Any, named: str, tmp_path: Path) -> None:
    file = save({"args": beside, "state_dict": STATE}, tmp_path)
    OfMine.made = 0
    with pytest.raises(WeightsError) as caught:
        read_weights(file)
    assert named in str(caught.value)
    if named:
        assert "reading it would run code that it names" in str(caught.value)
        assert "give --trust-pickle (in Python trust_pickle=True)" in str(caught.value)
    assert OfMine.made == 0
    assert places(file, trust_pickle=True) == ["state_dict"]
    assert OfMine.made == isinstance(beside, OfMine)


def test_a_whole_network_is_refused_as_such_and_trusted_gives_its_weights(tmp_path: Path) -> None:
    network = small()
    for content in (network, {"model": network}):
        file = save(content, tmp_path)
        with pytest.raises(WeightsError, match=r"is a whole pickled network: reading it would run code.*Sequential"):
            read_weights(file)
        (found,) = read_weights(file, trust_pickle=True)
        assert torch.equal(found.tensors["0.weight"], network.state_dict()["0.weight"])


def test_trusted_code_is_found_in_the_current_folder_or_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "theirs_18a.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import theirs_18a  # type: ignore[import-not-found]

    file = save({"a": theirs_18a.Thing(), "state_dict": STATE}, tmp_path)
    sys.path.remove(str(tmp_path))
    del sys.modules["theirs_18a"]
    with pytest.raises(WeightsError, match="No module named 'theirs_18a'. Its code must be found from "):
        read_weights(file, trust_pickle=True)
    monkeypatch.chdir(tmp_path)
    assert places(file, trust_pickle=True) == ["state_dict"]
    sys.modules.pop("theirs_18a")


def test_several_state_dicts_are_all_found_the_outermost_first(tmp_path: Path) -> None:
    content = {
        "deep": {"er": {"still": STATE}},
        "model": STATE.copy(),
        "list": [1, STATE.copy()],
        "loss": torch.ones(1),
    }
    assert places(save(content, tmp_path)) == ["", "model", "list.1", "deep.er.still"]


def test_contents_that_hold_themselves_end(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": STATE}
    content["self"] = content
    deep: Any = STATE
    for _ in range(300):
        deep = [deep]
    assert places(save({**content, "deep": deep}, tmp_path)) == ["state_dict"]


@pytest.mark.parametrize(
    ("noted", "found"),
    [
        ({"": {"version": 1}, "0": {"version": 2, "assign_to_params_buffers": True}}, {"": 1, "0": 2}),
        ({"": {"version": "one"}, 7: {"version": 1}, "0": [1]}, {}),
        ([1], {}),
    ],
)
def test_versions_are_believed_only_where_they_are_versions(noted: Any, found: Any, tmp_path: Path) -> None:
    state = OrderedDict(STATE)
    state._metadata = noted  # type: ignore[attr-defined]
    assert read_weights(save(state, tmp_path))[0].versions == found


def test_files_without_weights_say_what_they_hold(tmp_path: Path) -> None:
    for content, message in (
        ({"epoch": 3, "history": [1, 2]}, "holds no state_dict .* but dict of epoch, history"),
        ([1], "holds no state_dict .* but list"),
        ({}, "holds no state_dict .* but dict"),
    ):
        with pytest.raises(WeightsError, match=message):
            read_weights(save(content, tmp_path))


def test_a_newer_pickle_protocol_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="its pickle is of a protocol that cannot be read safely. Save it with torch"
    ):
        read_weights(save(STATE, tmp_path, pickle_protocol=4))


def test_safetensors_with_metadata_of_their_own(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "a.safetensors", metadata={"format": "pt", "epoch": "3"})
    (found,) = read_weights(tmp_path / "a.safetensors")
    assert found.tensors.keys() == STATE.keys()
    assert (found.place, found.versions) == ("", {})
