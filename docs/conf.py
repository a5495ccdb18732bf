"""The site: `sphinx-build -W -c docs . build/site`, from the repository's root.

The root is the source, so that a link from one page to another is the same in the repository and on the site. Pages are
what `include_patterns` names. What the extensions of `docs/extensions` add is told in their own first lines.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

from vizcnn.version import __version__ as version  # noqa: E402 - after the path

os.environ["TQDM_DISABLE"] = "1"  # no progress bars among the outputs of notebooks

project = "vizcnn"
author = "The vizcnn developers"
release = version
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    "benchmarks/README.md",
    "vizcnn/zoo/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["build", "dist", ".*", "**/.*", "tests", "**/__pycache__", "docs/extensions"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "formulas",
    "making",
    "offline",
]
smartquotes = False  # they turn the dashes of options into one
highlight_language = "text"  # of commands, formulas and tables that name none: Python would colour their words
suppress_warnings = ["config.cache"]  # values of the extensions that are functions

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # `-D nb_execution_mode=off`: notebooks without their pictures, in seconds
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # bars, and what libraries say of this machine

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "literal"
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "vizcnn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#9c2f4b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#f0a3b5", "color-brand-content": "#8cc4ec"},
}
pygments_style = "friendly"
pygments_dark_style = "native"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
