"""Where in each image the evidence for its class lies, window by window: the places that screening begins with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.auditing.network import Margins, Network, find_margins, to_logits
from vizcnn.auditing.places import Place, make_windows
from vizcnn.errors import NotDifferentiable
from vizcnn.models.batches import run_batches
from vizcnn.models.layers.capture import read_answer, tap_layer
from vizcnn.models.outputs import require_output
from vizcnn.models.scoring import Indices
from vizcnn.models.targets import OUTPUT

_ALONG, _SHARE = 7, 0.2
_ALONG_COVERED, _SHARE_COVERED = 4, 0.25  # each window is a run of every image


def map_windows(
    network: Network, indices: Indices, labels: npt.NDArray[np.int64], clean: Margins, fill: Tensor
) -> tuple[list[Place], Margins]:
    """Windows of the input, and what each is worth to each image's class margin: (n, W).

    By HiResCAM at the last layer with places (Draelos & Carin 2020, arXiv:2011.08891): the mean over a window of

        sum over channels of A * d margin / d A

    without a ReLU, enlarged to the input. Where no layer has places, or no gradient arrives, what covering each window
    with `fill` (C, H, W) costs: of fewer windows, side by side.
    labels, clean: of the images their classes, and the margins of these as they are, (n,)."""
    layer = network.last_layer
    if layer is not None:
        windows = make_windows(network.size, _ALONG, _SHARE)
        try:
            return windows, _map_by_gradients(network, indices, labels, layer, windows)
        except NotDifferentiable:
            pass
    windows = make_windows(network.size, _ALONG_COVERED, _SHARE_COVERED)
    return windows, _map_by_covering(network, indices, labels, clean, fill, windows)


def _map_by_gradients(
    network: Network, indices: Indices, labels: npt.NDArray[np.int64], layer: str, windows: list[Place]
) -> Margins:
    def run(part: slice) -> Margins:
        images = network.take(indices[part])  # (B, C, H, W)
        own = torch.from_numpy(labels[part]).to(images.device)
        with network.count(3 * len(images)), tap_layer(network.model, layer, images) as tapped, torch.enable_grad():
            answer = read_answer(network.model, network.model(images), len(images))
            margins = find_margins(to_logits(require_output(answer[OUTPUT]), network.head), own)  # (B,)
            activations = tapped.get(layer)
            if activations is None or activations.dim() != 4 or not margins.requires_grad:
                raise NotDifferentiable(f"no gradient of the margin arrives at layer {layer!r}. Name another layer")
            (slopes,) = torch.autograd.grad(margins.sum(), activations, allow_unused=True)
            if slopes is None:
                raise NotDifferentiable(f"the margin does not depend on layer {layer!r}. Name another layer")
        maps = (activations.detach() * slopes).sum(1, keepdim=True)  # (B, 1, h, w)
        large = F.interpolate(maps.float(), network.size, mode="bilinear", align_corners=False)[:, 0]  # (B, H, W)
        means = [large[:, top:bottom, left:right].mean((1, 2)) for top, left, bottom, right in windows]
        return np.asarray(torch.stack(means, 1).cpu().double().numpy())  # (B, W)

    batch = 1 if network.model.one_at_a_time else network.batch
    return np.concatenate([found for _, found in run_batches(len(indices), batch, run)])


def _map_by_covering(
    network: Network,
    indices: Indices,
    labels: npt.NDArray[np.int64],
    clean: Margins,
    fill: Tensor,
    windows: list[Place],
) -> Margins:
    values = np.zeros((len(indices), len(windows)))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own = indices[rows]

        def cover(some: Indices, own: Indices = own) -> Tensor:
            image, window = np.divmod(some, len(windows))
            images = network.take(own[image])
            for one, number in zip(images, window, strict=True):
                top, left, bottom, right = windows[number]
                one[:, top:bottom, left:right] = fill[:, top:bottom, left:right].to(images)
            return images

        covered = network.measure_margins(cover, len(own) * len(windows), int(label))
        values[rows] = clean[rows, None] - covered.reshape(len(own), len(windows))
    return values
