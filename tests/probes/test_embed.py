"""Embed: the map is the features', the accuracy is scikit-learn's, and what is left out is said."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from support import small_cnn
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import vizcnn
from vizcnn import testing
from vizcnn.cli.main import main
from vizcnn.errors import (
    DegenerateResult,
    ImageError,
    LayerNotFound,
    NonFiniteResult,
    ParameterError,
    TargetError,
)
from vizcnn.inputs.datasets import dataset
from vizcnn.scanning import embedding
from vizcnn.scanning.embedding import compute_knn_accuracy, embed_with_pca, measure_neighbours


def blobs(count: int, features: int, classes: int, apart: float = 1.0) -> tuple[Any, Any]:
    """Vectors (N, F) around one centre per class, and the classes (N,)."""
    random = np.random.default_rng(5)
    kinds = random.integers(0, classes, count)
    centres = apart * random.normal(size=(classes, features))
    return (centres[kinds] + random.normal(size=(count, features))).astype(np.float32), kinds


def cnn() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, name="small")


def photographs(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of two classes: warm ones and cold ones, with some noise."""
    random = np.random.default_rng(0)
    for name, colour in (("cold", (30, 60, 200)), ("warm", (220, 120, 20))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.clip(np.array(colour) + random.integers(-25, 25, (16, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


def plain_features(model: vizcnn.Model, images: Tensor) -> Any:
    """What enters the last linear layer, by a run of the layers before it."""
    assert isinstance(model.network, nn.Sequential)
    with torch.no_grad():
        return model.network[:-1](model.normalised(images)).numpy()


@pytest.mark.parametrize(("count", "features"), [(40, 7), (9, 30), (12, 12)])
def test_pca_is_scikit_learns_up_to_the_sign(count: int, features: int) -> None:
    vectors, _ = blobs(count, features, 3)
    reference = PCA(2, svd_solver="full").fit(vectors.astype(np.float64))
    points, shares = embed_with_pca(vectors)
    expected = reference.transform(vectors)
    signs = np.sign((points * expected).sum(0))
    np.testing.assert_allclose(points, signs * expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-6)


def test_the_farthest_image_lies_where_an_axis_points_to() -> None:
    vectors, _ = blobs(30, 8, 3)
    for each in (vectors, -vectors):
        points, _ = embed_with_pca(each)
        assert (points[np.abs(points).argmax(0), [0, 1]] > 0).all()


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("classes", [2, 5])
def test_neighbour_accuracy_is_scikit_learns_with_one_left_out(count: int, classes: int) -> None:
    vectors, kinds = blobs(80, 6, classes, apart=0.7)
    predicted = cross_val_predict(KNeighborsClassifier(count), vectors, kinds, cv=LeaveOneOut())
    expected = (predicted == kinds).mean()
    assert 0.2 < expected < 1
    assert compute_knn_accuracy(vectors, kinds, count) == pytest.approx(expected)


def test_neighbour_accuracy_in_blocks_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, kinds = blobs(80, 6, 4, apart=0.7)
    whole = compute_knn_accuracy(vectors, kinds, 3)
    monkeypatch.setattr(embedding, "_BLOCK", 80 * 7)
    assert compute_knn_accuracy(vectors, kinds, 3) == whole


def test_images_without_a_class_are_not_asked() -> None:
    vectors, kinds = blobs(40, 6, 2)
    labels = [None if i % 4 == 0 else str(kind) for i, kind in enumerate(kinds)]
    known = measure_neighbours(vectors, vectors[:, :2].astype(np.float64), labels, 5)
    assert known is not None
    kept = np.arange(40) % 4 != 0
    assert known.images == 30
    assert known.features == compute_knn_accuracy(vectors[kept], kinds[kept], 5)
    assert known.largest == max(np.bincount(kinds[kept])) / 30
    assert measure_neighbours(vectors, vectors[:, :2].astype(np.float64), ["one"] * 40, 5) is None


def test_features_are_what_enters_the_last_layer() -> None:
    model, images = cnn(), photographs()
    made = vizcnn.Embed(features=True)(model, images)
    np.testing.assert_allclose(made.arrays()["features"], plain_features(model, images), rtol=1e-5, atol=1e-6)
    expected, _ = embed_with_pca(plain_features(model, images))
    np.testing.assert_allclose(made.points, expected, atol=1e-5)
    assert made.provenance.details["layer"] == "what enters 7"
    assert "features" not in vizcnn.Embed()(model, images).arrays()


def test_a_layers_maps_are_averaged_over_their_places() -> None:
    model, images = cnn(), photographs()
    with torch.no_grad():
        expected = model.network.get_submodule("0")(images).mean((2, 3))  # (N, 8)
        output = model(images)
    made = vizcnn.Embed(layer="0", features=True)(model, images)  # an in-place ReLU follows
    np.testing.assert_allclose(made.arrays()["features"], expected, rtol=1e-5, atol=1e-6)
    made = vizcnn.Embed(layer="output", features=True)(model, images)
    np.testing.assert_allclose(made.arrays()["features"], output, rtol=1e-5, atol=1e-6)


def test_a_convolution_that_ends_a_network_has_its_bottleneck_before_it() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, images = vizcnn.Model(layers, size=16), photographs()
    made = vizcnn.Embed(features=True)(model, images)
    with torch.no_grad():
        expected = layers[:2](images).mean((2, 3))
    np.testing.assert_allclose(made.arrays()["features"], expected, rtol=1e-5, atol=1e-6)


def test_a_network_without_weights_is_shown_by_its_output(brightness: vizcnn.Model) -> None:
    made = vizcnn.Embed(features=True)(brightness, torch.rand(5, 3, 8, 8))
    assert made.found["layer"] == "output"
    assert made.arrays()["features"].shape == (5, 2)


def test_many_batches_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = cnn(), photographs(9)
    monkeypatch.setattr("vizcnn.scanning.features.default_batch", lambda _: 2)
    made = vizcnn.Embed(features=True)(model, images)
    np.testing.assert_allclose(made.arrays()["features"], plain_features(model, images), rtol=1e-5, atol=1e-6)
    assert made.numbers.tolist() == list(range(9))


def test_two_kinds_of_images_are_told_apart(folder: Path) -> None:
    made = vizcnn.Embed()(cnn(), folder)
    assert made.labels == ("cold",) * 6 + ("warm",) * 6
    assert made.found["neighbours"] == {
        "count": 5,
        "images": 12,
        "classes": 2,
        "features": 1.0,
        "plane": 1.0,
        "largest": 0.5,
    }
    cold, warm = made.points[:6, 0], made.points[6:, 0]
    assert max(cold) < min(warm) or max(warm) < min(cold)
    assert "12 images of 2 classes by 32 features, what enters 7; PCA" in made.describe()
    assert "5-nearest-neighbour accuracy 100.0% by features, 100.0% in the map" in made.describe()
    assert "would reach 50.0%" in made.describe()


def test_thumbnails_show_what_the_network_saw(folder: Path) -> None:
    made = vizcnn.Embed()(cnn(), folder)
    assert made.thumbnails
    for each in made.thumbnails:
        assert each.pixels.shape == (16, 16, 3)  # the middle of 16 x 24
        warm = each.pixels[:, :, 0].mean() > each.pixels[:, :, 2].mean()
        assert warm == (made.labels[each.index] == "warm")


def test_classes_come_from_a_file_where_one_is_given(folder: Path, tmp_path: Path) -> None:
    lines = [f"{kind}/{i}.png,{'even' if i % 2 == 0 else 'odd'}" for kind in ("cold", "warm") for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    made = vizcnn.Embed(labels=str(tmp_path / "labels.csv"))(cnn(), folder)
    assert made.classes == ("even", "odd")
    held = vizcnn.Embed()(cnn(), dataset(folder, {"0.png": "zero"}))
    assert held.labels.count("zero") == 2
    assert held.labels.count(None) == 10
    shown = vizcnn.TopImages(labels=str(tmp_path / "labels.csv"))(cnn(), folder, target="0:0")
    assert {one.label for one in shown.rows[0].exemplars} == {"even", "odd"}


def test_a_torch_dataset_says_the_classes() -> None:
    held = TensorDataset(photographs(), torch.tensor([0, 0, 0, 11, 11, 2]))
    assert vizcnn.Embed()(cnn(), held).classes == ("0", "2", "11")


def test_images_that_cannot_be_read_are_left_out_and_named(folder: Path) -> None:
    (folder / "cold" / "2.png").write_bytes(b"no image")
    made = vizcnn.Embed()(cnn(), folder)
    assert len(made.points) == 11
    assert 2 not in made.numbers
    assert made.names[2] == "cold/3.png"
    assert "1 of 12 images could not be read, the first: cold/2.png (" in made.describe()
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(ImageError, match="none of the images of .* can be read"):
        vizcnn.Embed()(cnn(), folder)


class Fragile(nn.Module):
    """NaN for images brighter than 0.9 on average."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))  # (N, 3)
        return torch.where(means.mean(1, keepdim=True) > 0.9, torch.nan, means)


def test_images_whose_features_are_not_finite_are_left_out_and_named() -> None:
    model, images = vizcnn.Model(Fragile(), size=8), torch.rand(5, 3, 8, 8) * 0.8
    images[0] = 1
    made = vizcnn.Embed()(model, images)
    assert made.numbers.tolist() == [1, 2, 3, 4]
    assert "1 images were left out, their features hold NaN or infinity" in made.describe()
    with pytest.raises(NonFiniteResult, match="features of all images at output"):
        vizcnn.Embed()(model, torch.ones(3, 3, 8, 8))


class Mixing(nn.Module):
    """Lets the images of a batch influence each other."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))  # (N, 3)
        return means - means.mean(0)


def test_what_would_mislead_is_refused() -> None:
    with pytest.raises(DegenerateResult, match="differs by .* between a run alone"):
        vizcnn.Embed()(vizcnn.Model(Mixing(), size=8), torch.rand(4, 3, 8, 8))
    with pytest.raises(DegenerateResult, match="all 3 images have the same features"):
        vizcnn.Embed()(cnn(), torch.full((3, 3, 16, 16), 0.3))


def test_two_images_lie_on_a_line_and_one_on_a_point() -> None:
    two = vizcnn.Embed()(cnn(), photographs(2))
    assert two.points[0, 0] == pytest.approx(-two.points[1, 0])
    np.testing.assert_allclose(two.points[:, 1], 0, atol=1e-6)
    assert "fewer than three images" in two.describe()
    assert "fewer than two classes are known, so no accuracy" in two.describe()
    np.testing.assert_array_equal(vizcnn.Embed()(cnn(), photographs(1)).points, [[0, 0]])


def test_layers_that_give_no_vector_are_refused() -> None:
    with pytest.raises(LayerNotFound, match="no layer named '70'"):
        vizcnn.Embed(layer="70")(cnn(), photographs())
    with pytest.raises(ParameterError, match="layer must be one layer, got '\\?', which is 8"):
        vizcnn.Embed(layer="?")(cnn(), photographs())
    with pytest.raises(TargetError, match="not \\(N, C\\) or \\(N, C, h, w\\)"):
        vizcnn.Embed(layer="0")(
            vizcnn.Model(nn.Sequential(nn.Flatten(2), nn.Flatten()), size=8), torch.rand(2, 3, 8, 8)
        )


@pytest.mark.parametrize(("method", "extra"), [("tsne", "embed"), ("umap", "umap")])
def test_a_missing_library_is_named_before_anything_is_computed(
    method: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "find_spec", lambda _: None)
    with pytest.raises(ParameterError, match=f"pip install 'vizcnn\\[{extra}\\]'"):
        vizcnn.Embed(method=method)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ParameterError, match="perplexity is an option of method 'tsne'"):
        vizcnn.Embed(perplexity=5.0)
    with pytest.raises(ParameterError, match=r"perplexity must be less than the number of images \(6\), got 6"):
        vizcnn.Embed(method="tsne", perplexity=6)(cnn(), photographs())
    with pytest.raises(ParameterError, match="t-SNE needs at least 4 images, got 3"):
        vizcnn.Embed(method="tsne")(cnn(), photographs(3))


def test_cautions_are_said() -> None:
    held = TensorDataset(photographs(5), torch.tensor([0, 0, 1, 2, 3]))
    said = vizcnn.Embed(neighbours=9)(cnn(), held).describe()
    assert "3 of 4 classes have one image" in said
    assert "only 4 neighbours could be asked, not 9" in said
    assert "ask fewer neighbours" in said


def test_tsne_keeps_groups_together_and_leaves_no_trace(folder: Path) -> None:
    model = cnn()
    before = testing.state_of(model)
    first, second = (vizcnn.Embed(method="tsne")(model, folder, seed=2) for _ in range(2))
    assert testing.state_of(model) == before
    np.testing.assert_array_equal(first.points, second.points)
    assert first.found["neighbours"]["plane"] == 1
    assert "t-SNE with perplexity 3.67" in first.describe()
    assert "JMLR" in first.provenance.paper


def test_umap_keeps_groups_together_and_leaves_no_trace(folder: Path) -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed")
    model = cnn()
    before = testing.state_of(model)
    first, second = (vizcnn.Embed(method="umap")(model, folder, seed=2) for _ in range(2))
    assert testing.state_of(model) == before
    np.testing.assert_array_equal(first.points, second.points)
    assert first.found["neighbours"]["plane"] == 1


def test_the_command_line_makes_one_map_of_a_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.npz"
    answer = CliRunner().invoke(main, ["embed", str(folder), "-m", "tiny", "--neighbours", "3", "-o", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "3-nearest-neighbour accuracy" in answer.output
    with np.load(out) as saved:
        assert saved["points"].shape == (12, 2)
        assert saved["classes"].tolist() == [0] * 6 + [1] * 6


def read_idx(path: Path) -> Any:
    data = gzip.decompress(path.read_bytes())
    sides = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sides)


def test_neighbours_in_the_bottleneck_know_digits(data: Path) -> None:
    digits = read_idx(data / "mnist" / "t10k-images-idx3-ubyte.gz")[:600]
    labels = read_idx(data / "mnist" / "t10k-labels-idx1-ubyte.gz")[:600]
    held = TensorDataset(torch.from_numpy(digits / np.float32(255))[:, None], torch.from_numpy(labels.copy()))
    known = vizcnn.Embed()(vizcnn.load("lecture"), held).found["neighbours"]
    assert known["features"] > 0.95
    assert known["largest"] < 0.2
    assert known["largest"] < known["plane"] < known["features"]
