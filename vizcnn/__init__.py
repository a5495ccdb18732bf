"""vizcnn shows what a convolutional network has learned.

    import vizcnn
    model = vizcnn.load("tiny")
    vizcnn.Occlusion()(model, "photo.jpg").save("photo.png")

Names load on first use: importing vizcnn itself imports neither torch nor matplotlib.
"""

# Whoever completes `vizcnn.` in an editor, or before the import has run, reads this file: the rest has names with _.
import typing as _typing
from importlib import import_module as _import_module

from vizcnn.version import __version__ as __version__

if _typing.TYPE_CHECKING:
    from vizcnn.ascent import Recipe as Recipe
    from vizcnn.auditing import audit as audit
    from vizcnn.errors import Interrupted as Interrupted
    from vizcnn.errors import VizcnnError as VizcnnError
    from vizcnn.evaluation import evaluate as evaluate
    from vizcnn.explaining.explain import explain as explain
    from vizcnn.exploring.call import explore as explore
    from vizcnn.inputs.images import open_photo as open_photo
    from vizcnn.inputs.photo import Photo as Photo
    from vizcnn.models.contract import InputContract as InputContract
    from vizcnn.models.loading import load as load
    from vizcnn.models.model import Model as Model
    from vizcnn.models.targets import Target as Target
    from vizcnn.models.targets import direction as direction
    from vizcnn.models.targets import target as target
    from vizcnn.probes.arithmetic import Arithmetic as Arithmetic
    from vizcnn.probes.cam import Cam as Cam
    from vizcnn.probes.deconvnet import Deconvnet as Deconvnet
    from vizcnn.probes.dream import Dream as Dream
    from vizcnn.probes.embed import Embed as Embed
    from vizcnn.probes.feature_maps import FeatureMaps as FeatureMaps
    from vizcnn.probes.filters import Filters as Filters
    from vizcnn.probes.invert import Invert as Invert
    from vizcnn.probes.layers import Layers as Layers
    from vizcnn.probes.maximize import Maximize as Maximize
    from vizcnn.probes.occlusion import Occlusion as Occlusion
    from vizcnn.probes.rise import Rise as Rise
    from vizcnn.probes.saliency import Saliency as Saliency
    from vizcnn.probes.style import Style as Style
    from vizcnn.probes.top_images import TopImages as TopImages
    from vizcnn.probing.checking import check as check
    from vizcnn.probing.probe import Probe as Probe
    from vizcnn.probing.probe import param as param
    from vizcnn.probing.rebuilding import probe_from as probe_from
    from vizcnn.receptive import receptive_fields as receptive_fields
    from vizcnn.results import Audit as Audit
    from vizcnn.results import Curve as Curve
    from vizcnn.results import Exemplars as Exemplars
    from vizcnn.results import Explanation as Explanation
    from vizcnn.results import Heatmap as Heatmap
    from vizcnn.results import ImageGrid as ImageGrid
    from vizcnn.results import Result as Result
    from vizcnn.results import Scatter as Scatter
    from vizcnn.results import Table as Table
    from vizcnn.results import UnitSums as UnitSums
    from vizcnn.results import load_result as load_result
    from vizcnn.results import use_style as use_style
    from vizcnn.scanning import Index as Index
    from vizcnn.scanning import scan as scan
    from vizcnn.site.building import atlas as atlas

_ROOMS = ("ascent", "auditing", "errors", "evaluation", "inputs", "probing", "results", "scanning", "testing")
"""The parts of vizcnn with public names of their own, which load on first use too."""

_HOMES = {
    "Arithmetic": "vizcnn.probes.arithmetic",
    "Audit": "vizcnn.results",
    "Cam": "vizcnn.probes.cam",
    "Curve": "vizcnn.results",
    "Deconvnet": "vizcnn.probes.deconvnet",
    "Dream": "vizcnn.probes.dream",
    "Embed": "vizcnn.probes.embed",
    "Exemplars": "vizcnn.results",
    "Explanation": "vizcnn.results",
    "FeatureMaps": "vizcnn.probes.feature_maps",
    "Filters": "vizcnn.probes.filters",
    "Heatmap": "vizcnn.results",
    "ImageGrid": "vizcnn.results",
    "Index": "vizcnn.scanning",
    "InputContract": "vizcnn.models.contract",
    "Interrupted": "vizcnn.errors",
    "Invert": "vizcnn.probes.invert",
    "Layers": "vizcnn.probes.layers",
    "Maximize": "vizcnn.probes.maximize",
    "Model": "vizcnn.models.model",
    "Occlusion": "vizcnn.probes.occlusion",
    "Photo": "vizcnn.inputs.photo",
    "Probe": "vizcnn.probing.probe",
    "Recipe": "vizcnn.ascent",
    "Result": "vizcnn.results",
    "Rise": "vizcnn.probes.rise",
    "Saliency": "vizcnn.probes.saliency",
    "Scatter": "vizcnn.results",
    "Style": "vizcnn.probes.style",
    "Table": "vizcnn.results",
    "Target": "vizcnn.models.targets",
    "TopImages": "vizcnn.probes.top_images",
    "UnitSums": "vizcnn.results",
    "VizcnnError": "vizcnn.errors",
    "atlas": "vizcnn.site.building",
    "audit": "vizcnn.auditing",
    "check": "vizcnn.probing.checking",
    "direction": "vizcnn.models.targets",
    "evaluate": "vizcnn.evaluation",
    "explain": "vizcnn.explaining.explain",
    "explore": "vizcnn.exploring.call",
    "load": "vizcnn.models.loading",
    "load_result": "vizcnn.results",
    "open_photo": "vizcnn.inputs.images",
    "param": "vizcnn.probing.probe",
    "probe_from": "vizcnn.probing.rebuilding",
    "receptive_fields": "vizcnn.receptive",
    "scan": "vizcnn.scanning",
    "target": "vizcnn.models.targets",
    "use_style": "vizcnn.results",
}

__all__ = [
    "Arithmetic",
    "Audit",
    "Cam",
    "Curve",
    "Deconvnet",
    "Dream",
    "Embed",
    "Exemplars",
    "Explanation",
    "FeatureMaps",
    "Filters",
    "Heatmap",
    "ImageGrid",
    "Index",
    "InputContract",
    "Interrupted",
    "Invert",
    "Layers",
    "Maximize",
    "Model",
    "Occlusion",
    "Photo",
    "Probe",
    "Recipe",
    "Result",
    "Rise",
    "Saliency",
    "Scatter",
    "Style",
    "Table",
    "Target",
    "TopImages",
    "UnitSums",
    "VizcnnError",
    "atlas",
    "audit",
    "check",
    "direction",
    "evaluate",
    "explain",
    "explore",
    "load",
    "load_result",
    "open_photo",
    "param",
    "probe_from",
    "receptive_fields",
    "scan",
    "target",
    "use_style",
]


def __getattr__(name: str) -> _typing.Any:
    if name in _ROOMS:
        return _import_module(f"vizcnn.{name}")
    if name not in _HOMES:
        from vizcnn.errors import did_you_mean

        raise AttributeError(f"module 'vizcnn' has no attribute {name!r}.{did_you_mean(name, [*_HOMES, *_ROOMS])}")
    return getattr(_import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])
