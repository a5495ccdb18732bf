from __future__ import annotations

import pytest
import torch

from vizcnn.ascent.optimisers import OPTIMISERS


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("nadam", torch.optim.NAdam)])
@pytest.mark.parametrize("rate", [0.05, 1e-3])
def test_steps_upwards_are_those_of_torchs_optimizer(name: str, kind: type[torch.optim.Optimizer], rate: float) -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(2, 3, 8, 8, generator=random)
    ours, theirs = start.clone(), start.clone()
    climb, optimizer = OPTIMISERS[name](ours, rate), kind([theirs], lr=rate)  # type: ignore[call-arg]
    for step in range(40):
        slope = torch.randn(start.shape, generator=random) * 10.0 ** (step % 5 - 3)
        climb(slope)
        theirs.grad = -slope
        optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert (ours - start).abs().max() > 3 * rate


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_lbfgs_steps_as_torchs_does_for_each_picture_alone(rate: float) -> None:
    """On a bowl with another curvature for each parameter, long enough that the oldest steps are forgotten. The last
    picture lies where it is flat, and stays there."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(3, 1, 4, 8, generator=random, dtype=torch.float64)
    curvature = torch.logspace(0, 2, 32, dtype=torch.float64).view(1, 1, 4, 8)
    curvature = curvature * torch.tensor([1.0, 0.1, 0.0]).double().view(3, 1, 1, 1)  # the last is flat: it never moves
    ours, theirs = start.clone(), [one.clone() for one in start]
    climb, each = (
        OPTIMISERS["lbfgs"](ours, rate),
        [torch.optim.LBFGS([one], rate, 1, history_size=20) for one in theirs],
    )
    for _ in range(30):
        climb(-curvature * ours)
        for one, own, optimizer in zip(theirs, curvature, each, strict=True):
            one.grad = own * one
            optimizer.step(lambda: 0.0)
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-6, atol=1e-8)
    assert torch.equal(ours[2], start[2])
    assert (ours[:2] - start[:2]).abs().max() > 0.5
