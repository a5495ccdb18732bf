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
