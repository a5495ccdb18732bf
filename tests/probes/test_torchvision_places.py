"""torchvision's own segmentation network and detector, against plain runs of them and plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import enliven, picture
from support_places import overlap
from torch import Tensor, nn

import vizcnn
from vizcnn.models import _torchvision

LABELS = ("__background__", "dog", "cat")


def build(room: str, name: str, images: Tensor) -> nn.Module:
    """A network of torchvision with random weights that are alive, always the same."""
    library = getattr(_torchvision.import_models(), room)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = getattr(library, name)(weights=None, weights_backbone=None, num_classes=3)
    enliven(network, images)
    return network.eval()


def test_lraspp_is_explained_over_the_pixels_that_it_predicts() -> None:
    image = picture((64, 64))
    network = build("segmentation", "lraspp_mobilenet_v3_large", picture((64, 64), count=4, seed=1))
    model = vizcnn.Model(network, size=64, labels=LABELS)
    seen = image.clone().requires_grad_()
    maps = network(seen)["out"][0]  # (3, 64, 64)
    shares = torch.bincount(maps.argmax(0).flatten(), minlength=3)
    index = int(shares[1:].argmax()) + 1
    assert 0 < shares[index] < 64 * 64
    mean = maps[index][maps.argmax(0) == index].mean()
    slopes = [
        torch.autograd.grad(one, seen, retain_graph=True)[0] for one in (mean, maps[2, 10, 50], maps[1, 3:9].mean())
    ]
    found = vizcnn.Saliency()(model, image, [LABELS[index], "cat@10,50", "dog@3-8,0-63"], progress=False)
    for t, slope in enumerate(slopes):
        expected = slope[0].abs().amax(0)
        np.testing.assert_allclose(found.values[0, t], expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert found.scores[0, 0] == pytest.approx(float(mean.detach()), rel=1e-4)
    usual = vizcnn.Saliency()(model, image, progress=False)
    np.testing.assert_allclose(usual.values[0, 0], found.values[0, 0], atol=1e-3 * float(found.values[0, 0].max()))
    assert usual.provenance.targets == ((LABELS[index],),)


def test_a_box_of_ssdlite_is_explained_by_what_is_like_it_in_the_covered_images() -> None:
    _torchvision.import_models()
    if not hasattr(torch.ops.torchvision, "nms"):
        pytest.skip("torchvision's compiled operators cannot load here, and detectors need them")
    image = picture((96, 96))
    network = build("detection", "ssdlite320_mobilenet_v3_large", image)
    model = vizcnn.Model(network, size=96, labels=LABELS)
    probe = vizcnn.Occlusion(window=48, stride=48, fill="#808080", engine="plain")
    found = probe(model, image, "dog#0", progress=False)

    def find(one: Tensor) -> list[tuple[list[float], float]]:
        with torch.no_grad():
            (boxes,) = network(one)
        rows = zip(boxes["boxes"].tolist(), boxes["labels"].tolist(), boxes["scores"].tolist(), strict=True)
        return [(box, score) for box, label, score in rows if label == 1]

    best, clean = max(find(image), key=lambda one: one[1])
    drops = np.zeros((96, 96))
    for top, left in ((0, 0), (0, 48), (48, 0), (48, 48)):
        covered = image.clone()
        covered[:, :, top : top + 48, left : left + 48] = 128 / 255
        like = max((overlap(box, best) * score for box, score in find(covered)), default=0.0)
        drops[top : top + 48, left : left + 48] = clean - like
    assert found.scores[0, 0] == pytest.approx(clean, rel=1e-4)
    np.testing.assert_allclose(found.values[0, 0], drops, atol=1e-3)
    assert np.abs(drops).max() > 0.02
    mark = found.target_marks[0][0]
    assert mark
    assert (mark.box.left, mark.box.top, mark.box.right, mark.box.bottom) == pytest.approx(best, abs=1e-2)
