"""What a scan keeps for an atlas beside its tallies, against all activations kept and counted at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support_scanning import SHARDED, Tensors, model_of, pictures
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.inputs.datasets import dataset
from vizcnn.scanning import Index, Part, Study, merge_indexes, scan
from vizcnn.scanning.statistics import compute_bin_edges
from vizcnn.scanning.study import number_classes

LAYERS = ["0", "relu(3)", "output"]


def read(model: vizcnn.Model, images: Tensor) -> dict[str, Tensor]:
    """All activations of the layers, by plain runs."""
    network = model.network
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        inner = network[:4](images.clone())  # a ReLU in place stands behind it
        return {"0": network[:1](images), "relu(3)": inner.relu(), "output": network(images)}


def test_one_pass_gives_bins_answers_and_a_sample(tmp_path: Path) -> None:
    model, images = model_of(), pictures(20)
    index = scan(model, images, tmp_path / "i", layers=LAYERS, study=Study(sample=7, best=3), **SHARDED)
    assert index.has_study
    edges = compute_bin_edges().numpy()
    for layer, output in read(model, images).items():
        found, maps = index.study(layer), output.flatten(2) if output.dim() > 2 else output[:, :, None]
        assert found.numbers.tolist() == [2, 5, 8, 11, 14, 17, 19]
        sampled = maps[found.numbers]
        torch.testing.assert_close(found.means, sampled.mean(2).half(), rtol=2e-3, atol=1e-6)
        torch.testing.assert_close(found.highest, sampled.amax(2).half(), rtol=2e-3, atol=1e-6)
        for c in range(maps.shape[1]):
            expected = np.histogram(maps[:, c].numpy(), edges)[0]
            assert found.bins[c].sum() == maps[:, c].numel()
            np.testing.assert_array_equal(found.bins[c].numpy(), expected)
    output = read(model, images)["output"]
    answers = index.answers
    assert answers.numbers.tolist() == list(range(20))
    assert torch.equal(answers.classes.long(), output.topk(3).indices)
    torch.testing.assert_close(answers.probabilities, output.softmax(1).topk(3).values)
    torch.testing.assert_close(answers.outputs, output.topk(3).values)


def test_shards_merge_exactly(tmp_path: Path) -> None:
    """However the images are cut into shards, and on however many machines, a study finds the same."""
    model, images = model_of(), pictures(20)
    options = {**SHARDED, "layers": LAYERS, "study": Study(sample=9)}
    whole = scan(model, images, tmp_path / "whole", **{**options, "shard_size": 20})
    cut = scan(model, images, tmp_path / "cut", **{**options, "shard_size": 4})
    for i in (1, 2):
        scan(model, images, tmp_path / f"part{i}", part=Part(i, 2), **{**options, "shard_size": 4})
    merged = merge_indexes(tmp_path / "part1", [tmp_path / "part2"])
    assert merged.digest == cut.digest
    for index in (cut, merged, Index.open(tmp_path / "cut")):
        for layer in LAYERS:
            for name, array in whole.study(layer).arrays().items():
                assert torch.equal(array, index.study(layer).arrays()[name])
        assert torch.equal(whole.answers.probabilities, index.answers.probabilities)


def test_a_damaged_study_is_found_and_done_again(tmp_path: Path) -> None:
    model, images = model_of(), pictures(16)
    options = {**SHARDED, "layers": LAYERS, "study": Study()}
    index = scan(model, images, tmp_path / "i", **options)
    digest, file = index.digest, index.shard_file(1)
    stored = bytearray(file.read_bytes())
    where = stored.index(index.answers.probabilities[8].numpy().tobytes())
    stored[where] ^= 1
    file.write_bytes(bytes(stored))
    assert Index.open(tmp_path / "i").lacking() == [1]
    with pytest.warns(vizcnn.errors.VizcnnWarning, match="1 of 2 shards"):
        assert scan(model, images, tmp_path / "i", **options).digest == digest


def test_a_plain_scan_knows_nothing_of_studies(tmp_path: Path) -> None:
    """Its manifest is what earlier versions wrote and read, and what it is asked of a study it refuses."""
    index = scan(model_of(), pictures(8), tmp_path / "i", layers=["0"], **SHARDED)
    manifest = json.loads((tmp_path / "i" / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert "study" not in manifest["identity"]
    assert not index.has_study
    for ask in (lambda: index.study("0"), lambda: index.answers):
        with pytest.raises(ParameterError, match="without a study"):
            ask()


def test_an_index_with_a_study_is_another_scan(tmp_path: Path) -> None:
    scan(model_of(), pictures(8), tmp_path / "i", layers=["0"], **SHARDED)
    with pytest.raises(ParameterError, match="holds another scan .study"):
        scan(model_of(), pictures(8), tmp_path / "i", layers=["0"], study=Study(), **SHARDED)


def test_images_that_cannot_be_read_have_no_answer(tmp_path: Path) -> None:
    images = [*pictures(3), str(tmp_path / "gone.png"), *pictures(2)]
    index = scan(model_of(), images, tmp_path / "i", layers=["output"], study=Study(sample=99), **SHARDED)
    assert index.answers.numbers.tolist() == [0, 1, 2, 4, 5]
    assert index.study("output").numbers.tolist() == [0, 1, 2, 4, 5]
    assert index.study("output").bins.sum(1).tolist() == [5] * 5


def test_no_sample_and_no_answers_where_none_are_asked_for_or_can_be(tmp_path: Path, brightness: vizcnn.Model) -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    index = scan(brightness, images, tmp_path / "i", layers=["output"], study=Study(sample=0), **SHARDED)
    assert index.study("output").means.shape == (0, 2)
    assert index.answers.classes.shape == (6, 2)

    class Maps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2]

    maps = scan(vizcnn.Model(Maps(), size=8), images, tmp_path / "m", layers=["output"], study=Study(), **SHARDED)
    assert maps.answers.classes.shape == (0, 5)


@pytest.mark.parametrize("options", [{"sample": -1}, {"best": 0}, {"sample": 1.5}, {"sample": True}])
def test_a_study_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match="of a study is a whole number"):
        Study(**options)


def test_two_classes_of_one_name_stay_apart(tmp_path: Path) -> None:
    held = Tensors(pictures(6), torch.tensor([0, 1, 2, 2, 1, 0]))
    held.classes = ["crane", "dog", "crane"]
    labels = [dataset(held).read(i)[1] for i in range(6)]
    assert labels == ["crane (#0)", "dog", "crane (#2)", "crane (#2)", "dog", "crane (#0)"]
    model = model_of(labels=["crane", "dog", "crane", "owl", "cat"])
    index = scan(model, held, tmp_path / "i", layers=["output"], **SHARDED)
    assert index.class_numbers.tolist() == [0, 1, 2, 2, 1, 0]
    assert sorted(index.tally("output").classes) == ["crane (#0)", "crane (#2)", "dog"]


def test_labels_become_classes_where_that_is_clear() -> None:
    names = ["crane", "dog", "crane", "7"]
    labels = ["dog", "crane", "crane (#2)", "crane (#1)", "2", "7", "9", None, "cat"]
    assert number_classes(labels, names).tolist() == [1, -1, 2, -1, 2, 3, -1, -1, -1]
    assert number_classes(["3", "cat"], None).tolist() == [3, -1]
