from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_cnn
from torch import Tensor, nn
from torch.nn.utils import prune

import vizcnn
from vizcnn.errors import ImageError, LayerNotFound, ParameterError, ShapeError, TargetError, UnsuitableNetwork
from vizcnn.geometry import Box
from vizcnn.inputs.images import open_photo
from vizcnn.models import _torchvision
from vizcnn.models.contract import InputContract
from vizcnn.testing import delicate_model, state_of


def test_normalisation_happens_inside() -> None:
    model = vizcnn.Model(nn.Identity(), size=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    images = torch.rand(2, 3, 2, 2, requires_grad=True)
    output = model(images)
    expected = (images - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 0.125])[:, None, None]
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[0, :, 0, 0], torch.tensor([2.0, 4.0, 8.0]))


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"Identity takes \(N, 3, H, W\), got \(1, 1, 2, 2\)"):
        vizcnn.Model(nn.Identity(), size=2)(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (224, 224), (256, 256), (1000, 250), (100, 120)])
def test_photographs_are_prepared_as_torchvision_prepares_them(size: tuple[int, int]) -> None:
    transform = _torchvision.import_models().get_model_weights("resnet18").DEFAULT.transforms()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    expected = transform(torch.from_numpy(pixels).permute(2, 0, 1)) * std + mean
    model = vizcnn.Model(nn.Identity(), size=224, resize=256)
    prepared, _ = model.prepared(open_photo(pixels))
    assert prepared.shape == (3, 224, 224)
    assert (prepared - expected).abs().mean() < 2 / 255  # torchvision rounds to 8 bits in between


def test_smoothing_is_left_out_where_the_contract_says_so() -> None:
    checkerboard = np.indices((32, 32)).sum(0) % 2 * 1.0
    smooth, sharp = (
        vizcnn.Model(nn.Identity(), size=11, antialias=flag).prepared(open_photo(checkerboard))[0]
        for flag in (True, False)
    )
    assert sharp.std() > 3 * smooth.std()


def test_the_box_says_what_the_network_sees() -> None:
    photo = open_photo(np.zeros((100, 200, 3)))
    _, box = vizcnn.Model(nn.Identity(), size=50).prepared(photo)
    assert box == Box(0, 50, 100, 150)
    _, box = vizcnn.Model(nn.Identity(), size=50, fit="stretch").prepared(photo)
    assert box == Box(0, 0, 100, 200)
    _, box = vizcnn.Model(nn.Identity(), size=(40, 60), resize=80).prepared(photo)
    assert box == Box(25, 62.5, 75, 137.5)


def test_boxes_map_back_onto_the_photograph() -> None:
    assert Box(0, 10, 25, 20).map_onto((50, 50), Box(0, 50, 100, 150)) == Box(0, 70, 50, 90)


def test_grey_and_colour_meet_the_networks_channels() -> None:
    colourful, shade = np.zeros((4, 4, 3)), np.full((4, 4), 0.5)
    colourful[:, :, 1] = 1
    grey_model = vizcnn.Model(nn.Identity(), size=4, channels=1)
    assert grey_model.prepared(open_photo(colourful))[0][0, 0, 0].item() == pytest.approx(0.587)
    rgb, _ = vizcnn.Model(nn.Identity(), size=4).prepared(open_photo(shade))
    assert rgb.shape == (3, 4, 4)
    assert (rgb == 0.5).all()


def test_a_photograph_of_the_right_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(0).random((8, 8, 3), np.float32)
    prepared, _ = vizcnn.Model(nn.Identity(), size=8).prepared(open_photo(pixels))
    np.testing.assert_array_equal(prepared.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"size": (0, 4)}, "positive size"),
        ({"size": (4, 4), "channels": 0}, "1 or more channels"),
        ({"size": (4, 4), "fit": "squash"}, "fit is crop or stretch, got 'squash'"),
        ({"size": (4, 4), "interpolation": "nearest"}, "interpolation is bilinear or bicubic, got 'nearest'"),
        ({"size": (4, 4), "channels": 1}, r"mean and std need 1 values"),
        ({"size": (4, 4), "std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"size": (4, 8), "resize": 5}, "at least the input's longer side 8 px, got 5"),
    ],
)
def test_contracts_that_cannot_be_are_refused(contract: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        InputContract(**contract)  # type: ignore[arg-type]


def test_what_is_borrowed_comes_back_as_it_was() -> None:
    model = delicate_model()
    before = state_of(model)
    with model.borrowed() as network:
        assert not any(m.training for m in network.modules())
        assert not any(p.requires_grad for p in network.parameters())
    assert state_of(model) == before


def test_what_is_borrowed_comes_back_after_an_error() -> None:
    model = delicate_model()
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt), model.borrowed():
        raise KeyboardInterrupt
    assert state_of(model) == before


def test_borrowing_does_not_call_a_networks_own_train_method() -> None:
    class Switching(nn.Module):
        def train(self, mode: bool = True) -> Switching:
            raise AssertionError(f"train({mode}) was called")

    with vizcnn.Model(Switching(), size=4).borrowed():
        pass


def test_a_mistyped_layer_is_answered_with_the_nearest(tiny: vizcnn.Model) -> None:
    assert isinstance(tiny.layer("layer4.0.conv2"), nn.Conv2d)
    with pytest.raises(
        LayerNotFound, match=r"no layer named 'layer4.0.conv3' in tiny. Did you mean 'layer4.0.conv2'\?"
    ):
        tiny.layer("layer4.0.conv3")


def test_classes_by_name(tiny: vizcnn.Model) -> None:
    index = tiny.class_index("Military Uniform")
    assert tiny.class_name(index) == "military uniform"
    with pytest.raises(TargetError, match=r"\(202 classes\). Did you mean 'military uniform'\?"):
        tiny.class_index("military uniforms")
    with pytest.raises(TargetError, match="has no class names, got 'cat'. Give the class as a number"):
        vizcnn.Model(small_cnn(), size=8).class_index("cat")


def test_the_weights_digest_changes_with_any_weight() -> None:
    a, b = vizcnn.Model(small_cnn(), size=8), vizcnn.Model(small_cnn(), size=8)
    assert a.weights_sha256() == b.weights_sha256()
    with torch.no_grad():
        next(b.network.parameters())[0] += 1e-3
    assert a.weights_sha256() != b.weights_sha256()


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_the_networks_digest_changes_with_layers_code_and_meaning_and_with_nothing_else() -> None:
    def digest(*layers: nn.Module, **given: Any) -> str:
        return vizcnn.Model(nn.Sequential(*layers), size=8, **given).network_sha256()

    def halve(x: Tensor) -> Tensor:
        return x / 2

    patched = Doubling()
    patched.forward = halve  # type: ignore[method-assign]
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda _module, _inputs, output: output / 3)
    named = type("Doubling", (Doubling,), {"forward": lambda _self, x: 3 * x})()
    different = [
        digest(nn.ReLU()),
        digest(nn.Sigmoid()),
        digest(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        digest(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)),
        digest(Doubling()),
        digest(patched),
        digest(hooked),
        digest(named),
        digest(nn.ReLU(), labels=["a"]),
        digest(nn.ReLU(), head="scores"),
    ]
    assert len(set(different)) == len(different)
    linear = nn.Linear(2, 2)
    assert digest(linear) == digest(nn.Linear(2, 2)) == digest(linear.eval().half())
    assert digest(Doubling()) == digest(Doubling())


def test_torchscript_is_refused_with_the_reason_by_what_looks_inside() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    model = vizcnn.Model(scripted, size=2)
    assert model.is_black_box
    with pytest.raises(UnsuitableNetwork, match="hooks on a TorchScript network raise or silently never fire"):
        vizcnn.Saliency()(model, torch.rand(1, 3, 2, 2), 0, progress=False)


def test_pillow_images_are_images_too(tiny: vizcnn.Model) -> None:
    assert tiny.prepared(open_photo(Image.new("RGB", (70, 90))))[0].shape == (3, 64, 64)


def test_case_decides_between_names_that_differ_in_nothing_else() -> None:
    model = vizcnn.Model(small_cnn(), size=8, labels=["Cardigan", "cardigan", "crane", "crane", "lemon"])
    assert (model.class_index("Cardigan"), model.class_index("cardigan")) == (0, 1)
    assert model.class_index("LEMON") == 4
    with pytest.raises(TargetError, match="'crane' names several classes of Sequential: 2, 3. Give one number"):
        model.class_index("crane")
    with pytest.raises(TargetError, match="'CARDIGAN' names several classes"):
        model.class_index("CARDIGAN")


def test_labels_of_another_number_than_the_outputs_are_refused() -> None:
    with pytest.raises(ParameterError, match="Sequential has 5 outputs but 2 labels"):
        vizcnn.Occlusion()(vizcnn.Model(small_cnn(), size=16, labels=["a", "b"]), np.zeros((16, 16)))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    statistics = np.full(3, 0.5, np.float32)
    model = vizcnn.Model(small_cnn(), size=np.int64(16), mean=statistics, std=statistics, labels=range(5))  # type: ignore[arg-type]
    found = vizcnn.Occlusion()(model, np.random.default_rng(0).random((16, 16)), np.int64(3))
    assert found.save(tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": (3, 8, 8)}, r"size is a side in px or \(height, width\), got \(3, 8, 8\)"),
        ({"size": 8, "mean": 0.5}, "mean is a sequence of 3 numbers, got 0.5"),
    ],
)
def test_odd_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        vizcnn.Model(small_cnn(), **given)


def test_lazy_modules_are_refused_with_the_remedy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.LazyLinear(3)
    with pytest.raises(ParameterError, match="parameter 'weight' has no values yet .* Run the network once first"):
        vizcnn.Model(lazy, size=8)


def test_buffers_come_back_as_they_were() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count: torch.Tensor
            self.register_buffer("count", torch.zeros(()))
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count = self.count + 1
            self.norm.train()
            return self.norm(x)  # type: ignore[no-any-return]

    model, images = vizcnn.Model(Counting(), size=8), torch.rand(2, 3, 8, 8)
    before = state_of(model)
    count = model.network.count
    with model.borrowed() as network:
        network(images)
    assert state_of(model) == before
    assert model.network.count is count


def test_what_a_forward_registers_or_resizes_is_gone_afterwards() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cache: torch.Tensor
            self.register_buffer("cache", torch.zeros(1))
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.register_buffer("places", torch.arange(4))
            self.cache.data = torch.full((5,), 2.0)
            return x * self.scale

    model, images = vizcnn.Model(Lazy(), size=8), torch.rand(2, 3, 8, 8)
    before = state_of(model)
    with model.borrowed() as network:
        network(images)
    assert state_of(model) == before
    assert [*model.network.state_dict()] == ["scale", "cache"]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_weights_that_hooks_make_have_their_gradients_afterwards() -> None:
    convs = [nn.Conv2d(3, 3, 1) for _ in range(3)]
    nn.utils.weight_norm(convs[0])
    nn.utils.spectral_norm(convs[1])
    prune.random_unstructured(convs[2], "weight", 0.5)
    network = nn.Sequential(*convs)
    network(torch.rand(1, 3, 8, 8))
    before = [conv.weight for conv in convs]
    vizcnn.FeatureMaps()(vizcnn.Model(network, size=8), torch.rand(2, 3, 8, 8), progress=False)
    assert all(conv.weight is weight for conv, weight in zip(convs, before, strict=True))
    torch.stack([weight.sum() for weight in before]).sum().backward()  # as a penalty does before the next forward
    assert all(parameter.grad is not None for conv in convs for n, parameter in conv.named_parameters() if n != "bias")


def test_sparse_buffers_do_no_harm() -> None:
    network, graph = nn.Conv2d(3, 2, 3), torch.eye(3).to_sparse()
    network.register_buffer("graph", graph)
    with vizcnn.Model(network, size=8).borrowed():
        graph.mul_(2)
    assert torch.equal(graph.to_dense(), torch.eye(3))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_buffers_without_values_are_refused() -> None:
    network = nn.Conv2d(3, 2, 3)
    network.register_buffer("scale", torch.ones(3, device="meta"), persistent=False)
    with pytest.raises(ParameterError, match="buffer 'scale' has no values .* Make the network outside"):
        vizcnn.Model(network, size=8)


def test_an_extremely_long_image_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ImageError, match="would have 1280000 x 64. Cut out the part to look at first"):
        vizcnn.Model(nn.Identity(), size=64).prepared(open_photo(np.zeros((1, 20000))))


def test_mean_and_std_are_never_out_of_date() -> None:
    """They are sent to a device once, and that must not show: in another mode, for another dtype or another mean."""
    model = vizcnn.Model(nn.Identity(), size=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = torch.rand(2, 3, 4, 4)
    with torch.inference_mode():
        model.normalised(images)
    leaf = images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model.normalised(leaf).sum(), leaf)
    torch.testing.assert_close(slopes[0, :, 0, 0], 1 / torch.tensor([0.5, 0.6, 0.7]))
    assert model.normalised(images.double()).dtype == torch.float64
    model.input = replace(model.input, mean=(0.0, 0.0, 0.0))
    torch.testing.assert_close(model.normalised(images), images / torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1))
    assert not list(model.network.buffers())
