"""Every notebook runs from top to bottom; a cell tagged `parameters` is replaced by smaller sizes."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SMALL = {
    "01-occlusion": "STRIDE = 7",
    "02-filters-and-feature-maps": "CHANNELS = 3",
    "03-saliency-and-cam": "SAMPLES = 2",
    "04-what-would-this-filter-like-to-see": "STEPS, SIDE = 2, 64",
    "05-which-images-excite-this-channel": "DIGITS, PIECES = 60, 4",
    "06-your-own-network": "IMAGES, EPOCHS = 200, 6",
    "08-transfer-learning": "EACH, LAST, ALL = 12, 3, 1",
    "09-may-i-believe-this-picture": "PIECES, EPOCHS, STRIDE = 150, 8, 8",
    "10-auditing-a-data-set": "PER_CLASS, EPOCHS, AUDITED = 30, 6, 12",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Proactor event loop")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL[path.stem]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures, "a notebook of vizcnn shows pictures"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
