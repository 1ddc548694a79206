"""Sphinx's settings. `make docs` builds the pages into site/, with every warning an error."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from building import fields, generated  # noqa: E402 - found by the line above

project = "Occluscope"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["building", "monitoring"]

html_theme = "furo"  # brings its files and uses the reader's own fonts: a page asks no other site for anything
html_title = "Occluscope"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "native"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # docstrings write code between single backticks too
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # what a base class explains stands there once
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {  # the client has a Metric too
    "Metric": "occluscope.results.kind.Metric",
    "NamedResult": "occluscope.results.kind.NamedResult",
}
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
napoleon_google_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"


def setup(app: Sphinx) -> None:
    """Write the pages that come from the code, and have docstrings' fields listed."""
    generated.write(ROOT / "docs" / "generated")
    app.connect("autodoc-process-docstring", fields.process, priority=0)  # before napoleon
