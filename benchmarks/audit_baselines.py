"""What maps alone say about shortcuts: two ways to look through the maps of a whole data set, as people do.

Both rank classes and prove nothing: whether a score means a shortcut, only a comparison with innocent networks says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph

Maps = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NEIGHBOURS = 7
_LEAST = 1e-9


@dataclass(frozen=True)
class MeanMap:
    """A class's mean map against those of the other classes: the largest difference in standard errors, and where."""

    score: float
    window: int


def compare_mean_maps(maps: Maps, labels: Labels) -> dict[int, MeanMap]:
    """For each class how far its mean map stands out, from maps (N, W) of W windows each.

    z_w = (mean of the class - mean of the others) / square root of (variance / n, of both)
    """
    found = {}
    for label in np.unique(labels).tolist():
        own, others = maps[labels == label], maps[labels != label]
        error = np.sqrt(own.var(0) / len(own) + others.var(0) / len(others)) + _LEAST
        distances = (own.mean(0) - others.mean(0)) / error  # (W,)
        found[label] = MeanMap(float(distances.max()), int(distances.argmax()))
    return found


@dataclass(frozen=True)
class Clusters:
    """A class's maps in two clusters: how well they part (0: into two that share nothing), and each image's (n,)."""

    connection: float
    members: Labels

    def measure_agreement(self, carries: npt.NDArray[np.bool_]) -> float:
        """The correlation of the two clusters with who carries the cue (n,): 1 where they are the same."""
        if len({*carries.tolist()}) < 2 or len({*self.members.tolist()}) < 2:
            return 0.0
        return float(abs(np.corrcoef(self.members, carries)[0, 1]))


def cluster_maps(maps: Maps, labels: Labels) -> dict[int, Clusters]:
    """For each class its maps (N, W) clustered as SpRAy does (Lapuschkin et al. 2019, arXiv:1902.10178).

    The second eigenvalue of the normalised Laplacian of the nearest neighbours' graph is the connection of the two
    clusters; a class with a small one is recognised in two ways."""
    found = {}
    for label in np.unique(labels).tolist():
        own = maps[labels == label]
        own = own / (np.linalg.norm(own, axis=1, keepdims=True) + _LEAST)
        near = kneighbors_graph(own, min(NEIGHBOURS, len(own) - 1)).toarray()
        near = np.maximum(near, near.T)  # (n, n)
        scale = near.sum(1) ** -0.5
        values, vectors = np.linalg.eigh(np.eye(len(own)) - scale[:, None] * near * scale)
        members = KMeans(2, n_init=5, random_state=0).fit_predict(vectors[:, :2])
        found[label] = Clusters(float(values[1]), members.astype(np.int64))
    return found
