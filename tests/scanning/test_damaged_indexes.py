"""An index believes nothing: whatever is missing, damaged or out of place is said, and mended by the same scan."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support_scanning import SHARDED, model_of, pictures, shards_of

from vizcnn.errors import OutputError, ParameterError
from vizcnn.probes.top_images import TopImages
from vizcnn.scanning import Finding, Index, Part, merge_indexes, scan
from vizcnn.scanning.observe import ScanSettings
from vizcnn.scanning.shard import pack_shard

pytestmark = pytest.mark.usefixtures("one_thread")


def flip(file: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def in_header(file: Path) -> int:
    """Where a word of its header stands."""
    return file.read_bytes().index(b"unreadable")


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], set[int]]] = {
    # what is done to shards 1 and 2 of five, and which are lacking then
    "deleted": (lambda one, _: one.unlink(), {1}),
    "swapped": (swap, {1, 2}),
    "copied": (lambda one, other: one.write_bytes(other.read_bytes()), {1}),
    "first byte": (lambda one, _: flip(one, 0), {1}),
    "last byte": (lambda one, _: flip(one, -1), {1}),
    "header": (lambda one, _: flip(one, in_header(one)), {1}),
    "half": (lambda one, _: one.write_bytes(one.read_bytes()[: one.stat().st_size // 2]), {1}),
    "longer": (lambda one, _: one.write_bytes(one.read_bytes() + b"x"), {1}),
    "empty": (lambda one, _: one.write_bytes(b""), {1}),
    "something else": (lambda one, _: one.write_bytes(b"x" * 4000), {1}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_says_so_whoever_asks_and_is_mended_by_its_scan_alone(tmp_path: Path, damage: str) -> None:
    whole = scan(model_of(), pictures(), tmp_path, **SHARDED)
    before, digest = shards_of(tmp_path), whole.digest
    change, lacking = DAMAGES[damage]
    change(whole.shard_file(1), whole.shard_file(2))
    index = Index.open(tmp_path)
    assert not index.complete
    assert index.digest == ""
    assert index.lacking() == sorted(lacking)
    for ask in (
        lambda: [index.tally(layer) for layer in index.layers],
        lambda: TopImages().answer(Index.open(tmp_path, pictures()), [f"{layer}:0" for layer in index.layers]),
        lambda: merge_indexes(tmp_path, []),
    ):
        with pytest.raises(
            OutputError, match="Run the same scan again, as a whole: it does only what is missing or damaged"
        ) as e:
            ask()
        assert "\n" not in str(e.value)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert scan(model_of(), pictures(), tmp_path, **SHARDED).digest == digest
    warned = f"{len(lacking)} of 5 shards of {tmp_path} were damaged and are done again, the first is 1"
    assert [str(each.message) for each in said] == ([] if damage == "deleted" else [warned])
    after = shards_of(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {whole.shard_file(i).name for i in lacking}
    assert Index.open(tmp_path).complete


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:.*were damaged")
def test_a_scan_that_was_stopped_trusts_what_is_there_no_more(tmp_path: Path, damage: str) -> None:
    digest = scan(model_of(), pictures(), tmp_path / "whole", **SHARDED).digest
    begun = scan(model_of(), pictures(), tmp_path / "begun", part=Part(1, 2), **SHARDED)
    change, damaged = DAMAGES[damage]
    change(begun.shard_file(0), begun.shard_file(2))
    assert Index.open(begun.folder).lacking() == sorted({1, 3, *(0 if number == 1 else 2 for number in damaged)})
    assert scan(model_of(), pictures(), begun.folder, **SHARDED).digest == digest


@pytest.mark.filterwarnings("ignore:.*were damaged")
def test_a_shard_that_comes_out_differently_when_it_is_done_again_is_part_of_the_index(tmp_path: Path) -> None:
    """As with another version of torch: here the index knows another seal."""
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    index.write(seals=[*index.facts["seals"][:4], "0" * 64])
    assert Index.open(tmp_path).lacking() == [4]
    assert scan(model_of(), pictures(), tmp_path, **SHARDED).complete


def test_an_index_that_was_asked_before_it_was_finished_is_finished_with_everything(tmp_path: Path) -> None:
    early = scan(model_of(), pictures(), tmp_path, part=Part(1, 2), **SHARDED)
    assert len(early.tally("0").values) == 3
    assert early.labels == [None] * 40
    digest = scan(model_of(), pictures(), tmp_path, part=Part(2, 2), **SHARDED).digest
    assert early.finish().digest == digest


def test_a_shard_from_elsewhere_that_looks_right_is_not_the_one_that_the_scan_wrote(tmp_path: Path) -> None:
    """The same numbers under the same settings, but another network's: only the finished index can tell."""
    index = scan(model_of(), pictures(), tmp_path / "a", **SHARDED)
    settings = ScanSettings(index.layers, (16, 16), 3, "max", 4, 1)
    index.shard_file(1).write_bytes(
        pack_shard(Finding(settings.make_tallies(), labels=[None] * 8), index.fingerprint, 1)
    )
    assert Index.open(tmp_path / "a").lacking() == [1]
    with pytest.raises(OutputError, match="shard-00001.safetensors is damaged .it is not the one that the scan wrote"):
        Index.open(tmp_path / "a").tally("0")


def test_a_layer_that_is_not_damaged_still_answers(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    right = index.tally("output").values
    place = index.shard_file(1).read_bytes().index(index.shard(1).read_arrays("0")[0]["sums"].numpy().tobytes())
    flip(index.shard_file(1), place)
    with pytest.raises(OutputError, match="what it holds of layer '0' was changed"):
        Index.open(tmp_path).tally("0")
    assert torch.equal(Index.open(tmp_path).tally("output").values, right)
    assert not Index.open(tmp_path).complete


def test_a_part_of_a_scan_mends_only_what_is_its_own(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    index.shard_file(1).unlink()
    index.shard_file(2).unlink()
    assert not scan(model_of(), pictures(), tmp_path, part=Part(2, 2), **SHARDED).complete
    assert Index.open(tmp_path).pending() == [2]
    assert scan(model_of(), pictures(), tmp_path, part=Part(1, 2), **SHARDED).digest == index.facts["digest"]


def test_merging_mends_with_the_shards_of_another_folder(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path / "a", **SHARDED)
    digest = index.digest
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    flip(tmp_path / "a" / "shard-00001.safetensors", -1)
    flip(tmp_path / "b" / "shard-00003.safetensors", -1)
    assert merge_indexes(tmp_path / "a", [tmp_path / "b"]).digest == digest
    (tmp_path / "a" / "shard-00003.safetensors").unlink()
    with pytest.raises(OutputError, match="1 of 5 shards of .*a are missing or damaged, the first is 3"):
        merge_indexes(tmp_path / "a", [tmp_path / "b"])


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: flip(f, 5), lambda f: f.write_text("x")])
def test_names_of_images_that_are_lost_are_written_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    damage(tmp_path / "images.json")
    asks: list[Callable[[], object]] = [lambda: Index.open(tmp_path).names, lambda: merge_indexes(tmp_path, [])]
    for ask in asks:
        with pytest.raises(OutputError, match="images.json is missing or damaged. Run the same scan again"):
            ask()
    assert not Index.open(tmp_path).complete
    before = shards_of(tmp_path)
    scan(model_of(), pictures(), tmp_path, **SHARDED)
    assert Index.open(tmp_path).complete
    assert Index.open(tmp_path).names == index.names
    assert shards_of(tmp_path) == before


MANIFEST_EDITS: list[Callable[[dict[str, Any]], object]] = [
    lambda m: m["identity"].update(top=-1),
    lambda m: m["identity"].update(layers=[1, 2]),
    lambda m: m["identity"]["layers"].update({"0": [10**9, 10**9, 10**9]}),
    lambda m: m["identity"]["layers"].update({"nowhere": [8]}),
    lambda m: m["identity"].pop("shards"),
    lambda m: m["identity"].update(shards=[[0, 99]]),
    lambda m: m["identity"]["model"]["input"].update(size="big"),
    lambda m: m["facts"].pop("complete"),
    lambda m: m["facts"].update(fields={"0": 3}),
    lambda m: m["facts"].update(digest=None),
    lambda m: m["facts"].update(seals=[]),
    lambda m: m["facts"].update(classes=float("nan")),
    lambda m: m["facts"].clear(),
    lambda m: m.update(facts=[]),
    lambda m: m.update(sha256=7),
    lambda m: m.pop("sha256"),
]


@pytest.mark.parametrize("edit", MANIFEST_EDITS)
def test_an_edited_manifest_is_one_clear_error_and_can_be_made_anew(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    digest = scan(model_of(), pictures(), tmp_path, **SHARDED).digest
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    edit(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    works: list[Callable[[], Index]] = [
        lambda: Index.open(tmp_path),
        lambda: scan(model_of(), pictures(), tmp_path, **SHARDED),
    ]
    for work in works:
        with pytest.raises(OutputError, match="manifest.json is damaged.* delete it and run the same scan again") as e:
            work()
        assert "\n" not in str(e.value)
    before = shards_of(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert scan(model_of(), pictures(), tmp_path, **SHARDED).digest == digest
    assert shards_of(tmp_path) == before


def test_without_a_manifest_nothing_that_stands_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shard-00001.safetensors").write_text("mine")
    with pytest.raises(ParameterError, match="shard-00001.safetensors is not of this scan and would be overwritten"):
        scan(model_of(), pictures(), tmp_path, **SHARDED)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
