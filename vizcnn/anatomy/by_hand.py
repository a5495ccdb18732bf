"""By hand: all numbers from which the units of a site are computed, for a few images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.graph.arithmetic import read_site
from vizcnn.graph.geometry import Pair
from vizcnn.graph.paths import Path
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.model import Model

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Term:
    """A convolution with the norm behind it multiplied in: weights float32 (C, I / groups, rows, columns), and bias
    float32 (C,). Padding is of zeros. A dense layer that reads a map is a convolution as large as the map."""

    weights: Floats
    bias: Floats
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


@dataclass(frozen=True)
class ByHand:
    """A site for n images: its units are its activation of the sum of all terms, each applied to what it reads.

    terms: one for each path; None where what is read is added as it is. reads: what each reads, float32 (n, C, h, w).
    says: float32 (n, ...), what the site gives, in the site's shape."""

    terms: tuple[Term | None, ...]
    reads: tuple[Floats, ...]
    says: Floats


def explain_missing(site: Site) -> str:
    """Why a site cannot be computed by hand, in words; "" where it can."""
    if site.missing:
        return site.missing
    if any(path.rows != (0, site.shape[0]) for path in site.paths):
        return "it joins the channels of several layers"
    return ""


def read_by_hand(model: Model, sites: Sites, site: Site, images: Tensor) -> ByHand:
    """A site by hand, for images (n, C, H, W) in [0, 1]. The network must be borrowed, and `explain_missing` give no
    reason against it."""
    values = read_site(sites, site, images.to(model.device, model.dtype))
    return ByHand(make_terms(site), tuple(map(_to_floats, values.reads)), _to_floats(site.axes.apply(values.after)))


def make_terms(site: Site) -> tuple[Term | None, ...]:
    """A term for each path of a site. The site's bias belongs to the first that has weights or a scale."""
    bias, terms = site.bias.astype(np.float32), list[Term | None]()
    for i, path in enumerate(site.paths):
        is_plain = path.is_plain and (i > 0 or not bias.any())
        terms.append(None if is_plain else _make_term(path, bias))
        bias = bias if is_plain else np.zeros_like(bias)
    return tuple(terms)


def _make_term(path: Path, bias: Floats) -> Term:
    """The term of a path. That of an identity reads each channel through a weight of its own."""
    groups = path.groups if path.weights is not None else len(path.scale)
    return Term(path.fold().astype(np.float32), bias, path.stride, path.padding, path.dilation, groups)


def _to_floats(values: Tensor) -> Floats:
    return np.asarray(values.float().cpu().numpy())
