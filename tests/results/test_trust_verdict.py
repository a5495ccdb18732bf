"""From the figures of a map to the words for them."""

from __future__ import annotations

import pytest

from vizcnn.results.trust import ALIKE, CHANCE, DISTINCT, SUPPORTED, Trust


@pytest.mark.parametrize(
    ("need", "contrast", "verdict"),
    [
        (SUPPORTED, DISTINCT, "supported"),
        (SUPPORTED - 0.5, DISTINCT, "weakly supported"),
        (100, DISTINCT + 0.01, "weakly supported"),  # partly the same map for another class is only partly a reason
        (100, ALIKE, "weakly supported"),
        (100, ALIKE + 0.01, "do not read as reasons"),
        (CHANCE, -0.5, "weakly supported"),
        (CHANCE - 0.5, 0.8, "no better than chance"),
        (CHANCE - 0.5, 0.9, "do not read as reasons"),
        (100, None, "contrast not tested"),
        (CHANCE - 0.5, None, "no better than chance"),
    ],
)
def test_the_verdict_follows_from_need_and_contrast(need: float, contrast: float | None, verdict: str) -> None:
    trust = Trust(need=need, correlation=0.5, blob=0.1, contrast=contrast, contrast_target="cat", runs=101)
    assert trust.verdict == verdict
    assert trust.describe().startswith(f"{trust.sign} {verdict}: ")
