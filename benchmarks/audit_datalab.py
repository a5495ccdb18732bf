"""What cleanlab's Datalab says of the folders of `audit.py`; it sees the networks' features and probabilities, too.

    pip install 'cleanlab[image]'
    python benchmarks/audit_datalab.py CACHE --mnist path/to/mnist --photos tiny-imagenet-200.tar.xz --seeds 1

It looks for images that are near duplicates, outliers, wrongly labelled, and for properties of images (dark, blurry,
...) that go with a class. For each folder: the share of carriers and of other images of their class that are marked,
and the property that goes most with the classes (0: the classes can be told by it alone, 1: not at all).
"""

from __future__ import annotations

import argparse
import contextlib
import io

import numpy as np
import torch
from audit import list_audits
from planted_networks import Case, Images, Workshop, add_options, plant

import vizcnn

MARKS = ("near_duplicate", "outlier", "label")


@torch.no_grad()
def read_network(model: vizcnn.Model, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """What the last layer sees of the images, and the classes' probabilities: (N, F) and (N, K)."""
    features: list[torch.Tensor] = []
    with model.borrowed():
        handle = model.network[-1].register_forward_hook(lambda _, given, __: features.append(given[0]))  # type: ignore[index]
        try:
            outputs = torch.cat([model(batch) for batch in images.pixels.split(128)])  # (N, K)
        finally:
            handle.remove()
    return torch.cat(features).numpy(), outputs.softmax(1).numpy()


def ask_datalab(model: vizcnn.Model, images: Images) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Which images are marked by what (N,), and how little each property of images goes with the classes."""
    from cleanlab import Datalab  # type: ignore[import-not-found]
    from datasets import Dataset, Image  # type: ignore[import-not-found]
    from PIL import Image as Pillow

    features, probabilities = read_network(model, images)
    pixels = (images.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    pictures = [Pillow.fromarray(one[..., 0] if one.shape[2] == 1 else one) for one in pixels]
    data = Dataset.from_dict({"image": pictures, "label": images.labels.tolist()}).cast_column("image", Image())
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Datalab(data, label_name="label", image_key="image", task="classification", verbosity=0)
        lab.find_issues(pred_probs=probabilities, features=features)
    issues = lab.get_issues()
    marked = {mark: issues[f"is_{mark}_issue"].to_numpy() for mark in MARKS if f"is_{mark}_issue" in issues}
    found = lab.get_info("spurious_correlations")["correlations_df"]
    return marked, dict(zip(found["property"], found["score"].astype(float), strict=True))


def format_row(case: Case, present: float, marked: dict[str, np.ndarray], carries: np.ndarray, own: np.ndarray) -> str:
    """The table's line for a folder, without its property."""
    cells = []
    for mark in MARKS:
        is_marked = marked.get(mark, np.zeros(len(own), bool))
        shares = [f"{is_marked[some].mean():.0%}" if some.any() else "-" for some in (own & carries, own & ~carries)]
        cells.append(" / ".join(shares))
    return f"| {case.data} {case.kind} in {case.where}, {present:.0%} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    workshop = Workshop(options.cache, options.mnist, options.photos)
    print(f"| folder | {' | '.join(MARKS)} | property |\n|---|---|---|---|---|")
    for case, folder in list_audits(workshop, options.seeds, options.data):
        if folder.per_class == 64:
            clean = workshop.read(case)[1].pick(64)
            images, carries, _ = plant(clean, case, folder.present, f"folder {folder.present}")
            marked, properties = ask_datalab(workshop.find_model(case), images)
            row = format_row(case, folder.present, marked, carries, images.labels.numpy() == case.label)
            name = min(properties, key=lambda key: properties[key])
            print(f"{row} {name.removesuffix('_score')} {properties[name]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
