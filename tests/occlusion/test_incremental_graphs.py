"""The incremental engine against the plain one on random graphs. VIZCNN_EXAMPLES=5000 looks further, at others each
time."""

from __future__ import annotations

from hypothesis import given, reject
from support import assert_same, sizes
from support_graphs import LAYERS, Case, cases, plainly, run, thorough

from vizcnn.errors import ParameterError


@thorough(0.7)
@given(cases(LAYERS))
def test_usual_networks_are_followed_exactly(case: Case) -> None:
    case, plain = plainly(case)
    try:
        found = run(case, "incremental")
    except ParameterError as error:
        assert "a change in place of shared memory" in str(error)  # noqa: PT017 - the one thing it may refuse
        reject()
    assert found.provenance.details["engine"] == "incremental"
    assert_same(found, plain, sizes(case.model, case.images, case.targets))
