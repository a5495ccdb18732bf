from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, NonFiniteResult, ParameterError, TargetError, VizcnnError
from vizcnn.geometry import Box


def captum_map(
    model: vizcnn.Model, image: Tensor, target: int, window: tuple[int, int], stride: tuple[int, int], fill: Tensor
) -> np.ndarray:
    """captum's answer to the same question, one channel of it (all channels are covered together)."""
    channels = image.shape[1]
    found = CaptumOcclusion(model.__call__).attribute(
        image,
        sliding_window_shapes=(channels, *window),
        strides=(channels, *stride),
        target=target,
        baselines=fill.view(1, -1, 1, 1).expand_as(image),
    )
    return found[0, 0].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(24, 24), (20, 31)])
@pytest.mark.parametrize(
    ("window", "stride"), [((4, 4), (4, 4)), ((8, 8), (3, 3)), ((5, 9), (5, 2)), ((7, 7), (1, 1)), ((20, 20), (20, 20))]
)
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_equal_to_captum(
    channels: int, size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], fill: str
) -> None:
    model = vizcnn.Model(small_cnn(channels), size=size, channels=channels, mean=[0.4] * channels, std=[0.2] * channels)
    image = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1))
    colour = image.mean((2, 3))[0] if fill == "mean" else torch.zeros(channels)
    with torch.no_grad():
        expected = captum_map(model, image, 3, window, stride, colour)
    found = vizcnn.Occlusion(window=window, stride=stride, fill=fill, batch=5)(model, image, target=3).values[0, 0]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_network_whose_answer_is_known(brightness: vizcnn.Model) -> None:
    """White image, black windows of 2 px: each takes 4 of 16 pixels from the corner's mean, 4 of 64 from all; the
    network's answer is 4 times the mean, less 2."""
    found = vizcnn.Occlusion(window=2, stride=2, fill="black")(
        brightness, np.ones((8, 8, 3)), target=["corner", "all", "p(all)"]
    )
    corner = np.zeros((8, 8))
    corner[:4, :4] = 4 * 4 / 16
    np.testing.assert_allclose(found.values[0, 0], corner, atol=1e-6)
    np.testing.assert_allclose(found.values[0, 1], np.full((8, 8), 4 * 4 / 64), atol=1e-6)
    np.testing.assert_allclose(found.scores, [[2, 2, 0.5]])
    assert (found.values[0, 2, :4, :4] < 0).all()  # covering the corner helps its rival


def test_the_finding_names_the_place_and_the_cost_in_the_photographs_pixels(brightness: vizcnn.Model) -> None:
    photo = np.zeros((80, 120, 3))  # the network sees the middle 80 x 80, scaled down by ten
    photo[0:20, 20:40] = 1
    found = vizcnn.Occlusion(window=2, stride=2, fill="black")(brightness, photo, target="corner")
    mark = found.marks[0][0]
    assert mark is not None
    assert mark.box == Box(0, 20, 20, 40)
    where = "covering the upper left (x 20-40, y 0-20 px) costs most: the logit falls by"
    assert where in found.findings[0][0]
    assert found.second_marks == ((None,),)  # the single window that costs most is the same place


class Weighted(nn.Module):
    """The sum of the pixels, each times a weight of its own: covering a window in black costs the weights in it."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)  # (H, W)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x.mean(1) * self.weights).sum((1, 2)), x.mean((1, 2, 3))], 1)  # (N, 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_box_and_the_sentence_name_what_the_map_shows_and_the_window_is_a_second_mark(seed: int) -> None:
    weights = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))
    model = vizcnn.Model(Weighted(weights), size=12, mean=[0] * 3, std=[1] * 3)
    found = vizcnn.Occlusion(window=4, stride=2, fill="black")(model, np.ones((12, 12, 3)), target=0)
    values, mark, second = found.values[0, 0], found.marks[0][0], found.second_marks[0][0]
    assert mark is not None
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert mark.box.top <= y < mark.box.bottom
    assert mark.box.left <= x < mark.box.right
    corners = [(y, x) for y in range(0, 10, 2) for x in range(0, 10, 2)]  # those at the end are clipped
    costs = {(y, x): float(weights[y : y + 4, x : x + 4].sum()) for y, x in corners}
    top, left = max(costs, key=costs.__getitem__)
    window = Box(top, left, min(top + 4, 12), min(left + 4, 12))
    if mark.box == window:
        assert second is None
    else:
        assert second is not None
        assert second.box == window
        assert second.text == f"this window alone: −{max(costs.values()):.3g}"
    assert f"falls by {values.max():.3g} on average" in found.findings[0][0]
    box = mark.box
    assert f"(x {box.left:.3g}-{box.right:.3g}, y {box.top:.3g}-{box.bottom:.3g} px)" in found.findings[0][0]


def test_where_every_window_costs_the_same_no_place_is_named() -> None:
    model = vizcnn.Model(Weighted(torch.ones(12, 12)), size=12, mean=[0] * 3, std=[1] * 3)
    found = vizcnn.Occlusion(window=4, stride=4, fill="black")(model, np.ones((12, 12, 3)), target=0)
    assert found.findings == (
        ("covering costs much the same almost everywhere: the logit of 0 falls by 16 on average, from 144",),
    )
    upper = torch.ones(12, 12)
    upper[8:] = 0.1
    uneven = vizcnn.Model(Weighted(upper), size=12, mean=[0] * 3, std=[1] * 3)
    found = vizcnn.Occlusion(window=4, stride=4, fill="black")(uneven, np.ones((12, 12, 3)), target=0)
    assert "covering costs most within the larger part of the image: the logit of 0 falls by 16" in found.describe()
    found = vizcnn.Occlusion(window=4, stride=4, fill="white")(model, np.full((12, 12, 3), 0.5), target=0)
    assert found.findings == (("covering no part lowers the logit of 0 (72)",),)
    assert (found.marks, found.second_marks) == (((None,),), ((None,),))


def test_batches_do_not_change_the_map(tiny: vizcnn.Model) -> None:
    one, many = (
        vizcnn.Occlusion(window=16, stride=8, batch=batch)(tiny, "sample:grace_hopper", progress=False)
        for batch in (1, 64)
    )
    np.testing.assert_allclose(one.values, many.values, atol=1e-4 * np.abs(one.values).max())


def test_several_images_and_targets_in_one_call_equal_single_calls(tiny: vizcnn.Model) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    probe = vizcnn.Occlusion(window=16, stride=16)
    together = probe(tiny, images, target=["lemon", "layer2.0.conv1:3", "layer1:5@4,4"])
    assert together.values.shape == (2, 3, 64, 64)
    for i, image in enumerate(images):
        for t, target in enumerate(["lemon", "layer2.0.conv1:3", "layer1:5@4,4"]):
            alone = probe(tiny, image, target=target).values[0, 0]
            np.testing.assert_allclose(together.values[i, t], alone, atol=1e-4 * np.abs(alone).max())


def test_the_predicted_class_is_the_default_target_of_each_image(tiny: vizcnn.Model) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images[1] = 0.5
    with tiny.borrowed(), torch.no_grad():
        predicted = [tiny.class_name(i) for i in tiny(images).argmax(1).tolist()]
    found = vizcnn.Occlusion(window=32, stride=32, fill="black")(tiny, images)
    assert [row[0] for row in found.provenance.targets] == predicted


def test_the_default_window_and_stride_follow_the_input() -> None:
    details = vizcnn.Occlusion()(
        vizcnn.Model(small_cnn(), size=56), np.random.default_rng(0).random((56, 56, 3)), target=0
    )
    assert details.provenance.details["window"] == (11, 11)
    assert details.provenance.details["stride"] == (2, 2)


def test_any_network_with_a_function_as_target() -> None:
    """A segmentation network: its output is a dictionary of maps."""

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.conv(x)}

    def area(output: dict[str, Tensor]) -> Tensor:
        return output["out"][:, 1].mean((1, 2))

    model = vizcnn.Model(Segmenter(), size=16)
    image = torch.rand(1, 3, 16, 16)
    found = vizcnn.Occlusion(window=4, stride=4)(model, image, target=area)
    assert found.provenance.targets == (("area",),)
    assert found.meanings == ("score lost when covered",)
    several = vizcnn.Model(Segmenter(), size=16, output=lambda raw: raw["out"].flatten(2))
    with pytest.raises(
        TargetError, match=r"there is no predicted class: the network.s output is \(1, 2, 256\) for one"
    ):
        vizcnn.Occlusion()(several, image)


def test_outputs_after_a_softmax_are_called_probabilities() -> None:
    model = vizcnn.Model(nn.Sequential(small_cnn(), nn.Softmax(1)), size=16, labels=list("abcde"))
    found = vizcnn.Occlusion()(model, torch.rand(1, 3, 16, 16))
    assert found.meanings == ("probability lost when covered",)
    assert found.predictions[0][0].probability == pytest.approx(found.scores[0, 0])


class Hungry(nn.Module):
    """Runs out of memory on batches of more than `most` images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner, self.most, self.seen = small_cnn(), most, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory on purpose")
        self.seen.append(len(x))
        out: Tensor = self.inner(x)
        return out


def test_the_batch_halves_until_it_fits() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    hungry = Hungry(5)
    probe = vizcnn.Occlusion(window=4, stride=2, batch=32, engine="plain")
    found = probe(vizcnn.Model(hungry, size=16), image, target=1)
    assert max(hungry.seen) == 4
    expected = probe(vizcnn.Model(small_cnn(), size=16), image, target=1)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


def test_memory_that_does_not_suffice_for_one_image_is_an_error() -> None:
    class Impossible(Hungry):
        def forward(self, x: Tensor) -> Tensor:
            if len(self.seen) >= 3:  # the clean output and scores of one image fit
                raise torch.OutOfMemoryError("out of memory on purpose")
            return super().forward(x)

    with pytest.raises(torch.OutOfMemoryError):
        vizcnn.Occlusion()(vizcnn.Model(Impossible(99), size=16), torch.rand(1, 3, 16, 16), target=1)


class Interrupting(nn.Module):
    """Somebody presses Ctrl-C during the n-th forward pass."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.inner, self.left = small_cnn(), n

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        out: Tensor = self.inner(x)
        return out


def test_ctrl_c_keeps_what_was_computed(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    probe = vizcnn.Occlusion(window=4, stride=4, batch=4, engine="plain")
    full = probe(vizcnn.Model(small_cnn(), size=16), images, target=1)
    runs_before = 2 * 2 + 1  # each image alone and in company, and both together
    with pytest.raises(vizcnn.Interrupted) as caught:
        probe(vizcnn.Model(Interrupting(runs_before + 3), size=16), images, target=1)
    found = caught.value.result
    assert isinstance(found, vizcnn.Heatmap)
    assert found.partial
    assert found.values.shape == (1, 1, 16, 16)
    np.testing.assert_allclose(found.values[0, 0, :8], full.values[0, 0, :8], atol=1e-6)
    assert np.isnan(found.values[0, 0, 8:]).all()
    assert "partial" in found.describe()
    assert found.manifest()["partial"] is True
    assert found.save(tmp_path / "a.png").exists()


def test_ctrl_c_before_the_first_window_is_an_ordinary_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        vizcnn.Occlusion(engine="plain")(vizcnn.Model(Interrupting(3), size=16), torch.rand(1, 3, 16, 16), target=1)
    assert not isinstance(caught.value, vizcnn.Interrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1 px, got 0"),
        ({"fill": "purpel"}, "fill must be mean, model, blur or a colour such as 'grey' or '#7f7f7f', got 'purpel'"),
        ({"stride": "wide"}, "stride must be a side in px such as 32, or HEIGHTxWIDTH such as 32x16, got 'wide'"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=f"Occlusion: {message}"):
        vizcnn.Occlusion(**options)  # type: ignore[arg-type]


def test_errors_say_what_was_being_done(tiny: vizcnn.Model) -> None:
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(ParameterError) as caught:
        vizcnn.Occlusion(window=65)(tiny, image)
    assert str(caught.value).startswith("Occlusion on tiny: input (1, 3, 64, 64): the window is 65 px high")
    with pytest.raises(TargetError, match=r"Occlusion on tiny: .*Did you mean 'lemon'\?"):
        vizcnn.Occlusion()(tiny, image, target="lemmon")


def test_what_would_mislead_is_refused() -> None:
    image = torch.rand(1, 3, 16, 16)

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 2)

    class Dropping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x).flatten(1)

    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) / 0 - x.flatten(1) / 0

    batch_statistics = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten())

    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(nn.functional.batch_norm(x, None, None, training=True))
            return out

    class Flat(nn.Module):
        """Constant but for rounding, which depends on the size of the batch."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x * 0 + 0.3)
            return out

    for network, error, message in (
        (Normalising(), DegenerateResult, "or lets the images of a batch influence each other"),
        (Flat(), DegenerateResult, "by more than rounding"),
        (Constant(), DegenerateResult, "no window changes the target 0 of tensor by more than rounding"),
        (
            Dropping(),
            DegenerateResult,
            "differs by .* between a run alone and a run beside another image, .*: it is random",
        ),
        (Nan(), NonFiniteResult, "holds NaN or infinity"),
        (batch_statistics, DegenerateResult, "layer '0' normalises with the statistics of each batch"),
    ):
        with pytest.raises(error, match=message):
            vizcnn.Occlusion()(vizcnn.Model(network, size=16), image, target=0)


def test_a_network_left_in_train_mode_is_probed_in_eval_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    image = torch.rand(1, 3, 8, 8)
    training = vizcnn.Occlusion(window=2)(vizcnn.Model(network.train(), size=8), image, target=0)
    assert network.training
    evaluating = vizcnn.Occlusion(window=2)(vizcnn.Model(network.eval(), size=8), image, target=0)
    np.testing.assert_array_equal(training.values, evaluating.values)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 3), r"an input tensor is \(3, H, W\) or a batch of these, got \(3, 3\)"),
        (torch.rand(1, 3, 8, 8) * 255, r"holds values in \[0, 1\], got .* Pass images before normalisation"),
        ([], "no images were given"),
        ([torch.rand(3, 8, 8), torch.rand(3, 8, 9)], "tensors of one call must share a shape"),
        ({"a": 1}, "an image is a path, an open file, a Pillow image or an array, got dict"),
    ],
)
def test_what_is_no_input(images: object, message: str) -> None:
    with pytest.raises(VizcnnError, match=message):
        vizcnn.Occlusion()(vizcnn.Model(small_cnn(), size=8), images)


def test_other_precisions_are_kept() -> None:
    model = vizcnn.Model(small_cnn().double(), size=16)
    found = vizcnn.Occlusion()(model, np.random.default_rng(0).random((20, 20, 3)), target=0)
    single = vizcnn.Occlusion()(
        vizcnn.Model(small_cnn(), size=16), np.random.default_rng(0).random((20, 20, 3)), target=0
    )
    np.testing.assert_allclose(found.values, single.values, atol=1e-5)


def test_a_target_function_must_give_one_number_per_image() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    for function in (lambda output: output.mean(0)[:1], lambda output: output[:1, 3]):
        with pytest.raises(TargetError, match="gives 1 numbers for 2 images. It must give one per image"):
            vizcnn.Occlusion()(model, torch.rand(1, 3, 16, 16), function)


def test_ctrl_c_wins_over_a_map_that_is_still_flat() -> None:
    """The first windows of a brightness network change nothing; an interrupt there is no dead unit."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            if self.runs > 5:
                raise KeyboardInterrupt
            return x[:, :, -1, -1] * 3

    with pytest.raises(vizcnn.Interrupted) as caught:
        vizcnn.Occlusion(window=4, stride=4, batch=1)(
            vizcnn.Model(Corner(), size=16), torch.rand(1, 3, 16, 16), target=0
        )
    assert isinstance(caught.value.result, vizcnn.Heatmap)
    assert caught.value.result.partial


def test_targets_of_different_units_do_not_share_a_colour_scale(tiny: vizcnn.Model) -> None:
    found = vizcnn.Occlusion(window=16, stride=16)(
        tiny, "sample:grace_hopper", ["lemon", "p(lemon)", "layer4:3", "pizza"]
    )
    assert found.meanings == (
        "logit lost when covered",
        "probability lost when covered",
        "activation of layer4 lost when covered",
        "logit lost when covered",
    )
    assert found.scale(0, 0) == found.scale(0, 3) > 10 * found.scale(0, 1)
    assert len(found.figure().axes) == 1 + 4 + 4  # the photograph, the maps, a bar each
    assert found.manifest()["provenance"]["target_specs"][0][1] == f"p({tiny.class_index('lemon')})"


def test_sigmoid_outputs_get_no_made_up_probabilities() -> None:
    """A softmax over sigmoids would be the probability of nothing."""
    model = vizcnn.Model(nn.Sequential(small_cnn(), nn.Sigmoid()), size=16, labels=list("abcde"))
    found = vizcnn.Occlusion()(model, torch.rand(1, 3, 16, 16), "a")
    named = {each.label: each.probability for each in found.predictions[0]}
    assert named["a"] == pytest.approx(found.scores[0, 0])
    assert found.meanings == ("probability lost when covered",)


def test_a_target_that_nothing_can_move_is_refused_before_all_windows_are_run() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.images = small_cnn(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.images += len(x) * (not x.is_meta)
            out: Tensor = self.inner(x)
            return out

    network = Counting()
    nn.init.zeros_(network.inner[-1].weight)  # type: ignore[arg-type]
    for engine in ("plain", "auto"):
        network.images = 0
        with pytest.raises(DegenerateResult, match=r"no window .* under the first \d+\), nor does covering the whole"):
            vizcnn.Occlusion(window=4, stride=1, engine=engine)(
                vizcnn.Model(network, size=64), torch.rand(1, 3, 64, 64), 0, progress=False
            )
        assert network.images < 300  # of 3721 windows


def test_a_patch_far_from_the_first_windows_is_found() -> None:
    """The first windows do nothing, and the target can be moved all the same."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1, -2:, -2:].mean((2, 3)) * 3

    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = vizcnn.Occlusion(window=4, stride=4, batch=4, engine="plain", fill="black")(
        vizcnn.Model(Corner(), size=32), image, 0, progress=False
    )
    assert found.values[0, 0, -1, -1] == pytest.approx(3 * float(image[0, 0, -2:, -2:].mean()))
    assert not found.values[0, 0, :28].any()


def test_small_numbers_are_not_rounded_away(tiny: vizcnn.Model) -> None:
    found = vizcnn.Occlusion(window=32, stride=32)(tiny, torch.full((3, 64, 64), 0.5).tril(), "p(lemon)")
    assert "falls by 0.00," not in found.findings[0][0]


def test_the_network_can_be_trained_after_a_probe() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()
            self.mask: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.mask is None:
                self.mask = torch.ones_like(x[:1])
            out: Tensor = self.inner(x * self.mask)
            return out

    network = Caching()
    vizcnn.Occlusion()(vizcnn.Model(network, size=16), torch.rand(1, 3, 16, 16), 0)
    network(torch.rand(2, 3, 16, 16)).sum().backward()


def test_many_images_need_no_more_memory_than_one() -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = vizcnn.Occlusion(batch=2)(vizcnn.Model(Hungry(3), size=16), images, 0)
    assert found.values.shape[0] == 5
