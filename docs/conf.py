"""How the documentation is built: `make docs`, offline, into `mini_platform/web/help/`, which is served at `/help/`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Mini Platform"
copyright = "the authors of Mini Platform"  # noqa: A001 - Sphinx names it so
release = version = version_of("mini-platform")
extensions = ["myst_parser", "reference"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Mini Platform"
html_static_path: list[str] = []
html_copy_source = False
html_show_sphinx = False
nitpicky = True
