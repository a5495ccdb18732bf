"""The input contract: normalisation, the value of white, and the channels that are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vizcnn
from vizcnn.errors import ImageError, ParameterError, ShapeError, VizcnnWarning
from vizcnn.models.contract import InputContract


def make_model(**contract: Any) -> vizcnn.Model:
    return vizcnn.Model(nn.Identity(), size=4, **contract)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            r"divide by 255: mean=\(0.485, 0.456, 0.406\), std=\(0.229, 0.224, 0.225\)$",
        ),
        ((123.675, 116.28, 103.53), (0.229, 0.224, 0.225), r"divide by 255: mean=\(0.485, 0.456, 0.406\)$"),
        ((102.9801, 115.9465, 122.7717), None, r"std=\(0.003922, 0.003922, 0.003922\)$"),
        ((-0.5, 0.5, 0.5), None, r"mean lies in \[0, 1\].*got \(-0.5, 0.5, 0.5\). Give the mean of images whose black"),
        ((32768.0, 0, 0), None, "Give the mean of images whose black is 0"),
        ((float("nan"), 0, 0), None, "Give the mean"),
        ((0.5, 0.5, 0.5), (0.5, 0, 0.5), "std must be positive"),
        ((0.5, 0.5, 0.5), (0.5, float("inf"), 0.5), "std must be positive"),
    ],
)
def test_a_mean_outside_zero_one_is_refused(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_model(mean=mean, std=std)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0, 1), (0, 1 / 255), (1, 0.5), (0.485, 0.229)])
def test_contracts_that_are_in_use_are_taken(mean: float, std: float) -> None:
    images = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(make_model(mean=[mean] * 3, std=[std] * 3)(images), (images - mean) / std)


def test_numbers_for_bytes_divided_by_255_give_what_such_a_network_was_trained_on() -> None:
    images = torch.rand(1, 3, 4, 4)
    found = make_model(mean=[each / 255 for each in (103.94, 116.78, 123.68)], std=[1 / 255] * 3)(images)
    torch.testing.assert_close(found, 255 * images - torch.tensor([103.94, 116.78, 123.68])[:, None, None])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_arrays_and_tensors_of_any_channels_become_inputs(channels: int) -> None:
    model = make_model(channels=channels, mean=[0.25] * channels)
    array = np.random.default_rng(0).random((4, 4, channels), np.float32)
    inputs, _ = model.prepared(vizcnn.open_photo(array, channels=channels))
    torch.testing.assert_close(inputs, torch.from_numpy(array).permute(2, 0, 1))
    torch.testing.assert_close(model(inputs[None]), inputs[None] - 0.25)
    for other in {1, 2, 3, 4, 5} - {channels}:
        with pytest.raises(ShapeError, match=rf"takes \(N, {channels}, H, W\), got \(1, {other}, 4, 4\)"):
            model(torch.zeros(1, other, 4, 4))


@pytest.mark.parametrize(("channels", "others"), [(1, (2, 5)), (3, (2, 4, 5)), (2, (1, 3, 5)), (5, (1, 2, 3, 4))])
def test_no_channels_are_made_up_or_dropped(channels: int, others: tuple[int, ...]) -> None:
    """But for RGB and grey, which become each other."""
    for other in others:
        photo = vizcnn.open_photo(np.zeros((6, 6, other)), channels=other)
        with pytest.raises(ImageError, match=rf"has {other} channels?.*, and the network takes {channels}\. Give an"):
            make_model(channels=channels).prepared(photo)


def test_channels_that_come_first_are_seen() -> None:
    photo = vizcnn.open_photo(np.zeros((5, 30, 40)))
    with pytest.raises(ImageError, match=r"has 40 channels.*takes 5. Its channels seem to come first: give numpy.move"):
        make_model(channels=5).prepared(photo)


@pytest.mark.parametrize(
    ("channels", "display", "drawn"),
    [
        (1, None, None),
        (1, 0, None),
        (2, None, (0,)),
        (2, 1, (1,)),
        (3, None, None),
        (4, None, (0, 1, 2)),
        (5, (3, 2, 1), (3, 2, 1)),
        (12, [7], (7,)),
    ],
)
def test_the_channels_that_are_drawn(channels: int, display: Any, drawn: tuple[int, ...] | None) -> None:
    assert make_model(channels=channels, display=display).input.display == drawn


@pytest.mark.parametrize(
    ("display", "message"),
    [
        ((0, 1), "three channels, drawn as red, green and blue, or one"),
        ("3,2,1", "three channels"),
        (2.5, "three channels"),
        ((1, 2, 5), r"names channels 0 to 4, counted from 0, got \(1, 2, 5\)"),
        (-1, "names channels 0 to 4"),
    ],
)
def test_channels_that_cannot_be_drawn_are_refused(display: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_model(channels=5, display=display)


def test_white_is_where_the_contract_says() -> None:
    array = np.arange(16, dtype=np.uint16).reshape(4, 4) * 273  # up to 4095
    result = vizcnn.Occlusion(window=2)(
        vizcnn.Model(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), size=4, channels=1, white=4095),
        [array, array.astype(np.int32), array.astype(np.float64)],
        target=0,
        progress=False,
    )
    np.testing.assert_allclose(result.scores[:, 0], [0.5, 0.5, 0.5], atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_bytes_have_their_own_white() -> None:
    inputs, _ = make_model(channels=1).prepared(vizcnn.open_photo(np.full((4, 4), 51, np.uint8), white=4095))
    torch.testing.assert_close(inputs, torch.full((1, 4, 4), 0.2))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((4, 4), 4096, np.uint16),
            r"must hold values in 0..4095, got 4096..4096. Give a larger value of white",
        ),
        (np.full((4, 4), -1, np.int16), r"got -1..-1. Clip the values first"),
        (np.full((4, 4), 0.5), "floats up to 0.5, nearly black where 4095 is white"),
    ],
)
def test_what_does_not_fit_white_is_refused(array: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        vizcnn.open_photo(array, white=4095)


@pytest.mark.parametrize("channels", [2.5, "3", None])
def test_channels_are_a_whole_number(channels: Any) -> None:
    with pytest.raises(ParameterError, match="channels is a whole number, such as 3 for RGB, got"):
        make_model(channels=channels)


@pytest.mark.parametrize("white", [0, -1, float("inf"), float("nan"), "4095"])
def test_white_is_a_number_above_zero(white: Any) -> None:
    with pytest.raises(ParameterError, match="white is the value of white, such as 4095, got"):
        make_model(white=white)


def test_few_bits_are_said_once_for_all_images_of_a_call() -> None:
    model = vizcnn.Model(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), size=4, channels=1)
    arrays = [np.arange(16, dtype=np.uint16).reshape(4, 4) * factor for factor in (60, 100, 273)]
    with pytest.warns(VizcnnWarning) as caught:
        vizcnn.Occlusion(window=2)(model, arrays, target=0, progress=False)
    assert len({str(one.message) for one in caught}) == 1
    assert "--white 4095" in str(caught[0].message)


def test_what_is_loaded_takes_white_and_display() -> None:
    model = vizcnn.load("tiny", white=1023, display=(2, 1, 0))
    assert (model.input.white, model.input.display) == (1023, (2, 1, 0))
    assert vizcnn.load("tiny").input == InputContract(
        **{**vars(model.input), "white": None, "display": None}  # the rest is the network's own
    )
