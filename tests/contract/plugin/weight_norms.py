"""A third party's probe, complete: what it computes, how it is drawn, and nothing else."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vizcnn import Probe, Result, param


@dataclass(frozen=True)
class Norms(Result):
    names: list[str]
    values: np.ndarray

    def arrays(self):
        return {"values": self.values}

    def summary(self):
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def describe(self):
        return f"{self.names[self.values.argmax()]} is the largest with {self.values.max():.2f}"

    def figure(self):
        figure = Figure()
        figure.add_subplot().barh(self.names, self.values)
        return figure


class WeightNorms(Probe):
    """How large are the weights of each layer?"""

    needs_images = False
    order: int = param(2, "Which norm.", min=1)

    def compute(self, subject):
        weights = {n: p for n, p in subject.model.network.named_parameters() if p.dim() > 1}
        values = np.array([float(w.flatten().norm(self.order)) for w in weights.values()])
        return Norms(subject.provenance(), list(weights), values)
