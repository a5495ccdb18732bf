"""From the figures of a map to the words for them."""

from __future__ import annotations

from dataclasses import replace

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


def test_words_do_not_say_more_than_the_verdict() -> None:
    """89.5, of which ties are a half, is below 90 and is not rounded up to it."""
    trust = Trust(need=89.5, correlation=0.5, blob=0.1, contrast=0.1, contrast_target="cat", runs=101)
    assert trust.describe().startswith("~ weakly supported: better than 89 of 100 random maps")


def test_a_remedy_is_for_the_method_that_it_helps() -> None:
    trust = Trust(need=95, correlation=0.5, blob=0.1, contrast=0.1, contrast_target="cat", runs=101, missing=0.3)
    assert trust.sentences[-1] == "its sum is 70% of what it should add up to (integrated gradients: more steps help)"
    assert "help" not in replace(trust, missing=0.05).describe()


def test_a_map_that_a_blob_in_the_middle_equals_is_said_to_be_no_better() -> None:
    trust = Trust(need=95, correlation=0.5, blob=0.5, contrast=0.1, contrast_target="cat", runs=101)
    assert trust.sentences[-1] == "a blob in the middle does as well"
    assert "blob" not in replace(trust, blob=0.49).describe()


def test_much_the_same_map_is_that_of_another_class_whichever_was_chosen() -> None:
    trust = Trust(need=95, correlation=0.5, blob=0.1, contrast=0.94, contrast_target="cat", runs=101)
    assert trust.sentences[0] == "much the same map (0.94) for another class, cat"
