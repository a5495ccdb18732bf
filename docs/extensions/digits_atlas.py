"""Makes the atlas that docs/atlas.md leads to: the network `lecture` and 400 handwritten digits of scikit-learn.

    python docs/extensions/digits_atlas.py build/atlas      # then open build/atlas/site/index.html

It is kept for as long as vizcnn does not change. The digits are those of E. Alpaydin and C. Kaynak (Optical Recognition
of Handwritten Digits, 1998), CC BY 4.0; so is what the atlas shows of them. Those of MNIST, by which the network was
trained, are not shipped with this repository.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import gallery
import torch

DIGITS = "digits of scikit-learn (Alpaydin and Kaynak 1998, CC BY 4.0)"  # which the small print of the atlas names
PICTURES = ("conv1", "conv2", "fc2")  # those of the hundred units of fc1 would take as long as all else


def make_atlas(folder: Path) -> None:
    """The atlas in FOLDER/site, unless it is there and as this state of the code would make it."""
    digest = gallery.digest_code((".py", ".json", ".safetensors", ".js", ".css", ".html")) + f" {DIGITS} {PICTURES}"
    stamp = folder / "digest"
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    gallery.write_digits(folder / DIGITS)
    from vizcnn import atlas, load

    torch.set_num_threads(1)
    atlas(load("lecture"), folder / DIGITS, folder / "site", pictures=PICTURES, progress=False)
    stamp.write_text(digest)


if __name__ == "__main__":
    make_atlas(Path(sys.argv[1]))
