"""Sphinx: pages of the committed outputs. Nothing is executed, and nothing is loaded from another address."""

import json
from pathlib import Path

HERE = Path(__file__).parent

project = "LLM inference frameworks, measured"
language = "en"
extensions = ["myst_nb"]
exclude_patterns = ["extra", "files", "helpers", "made"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # sliders need a kernel; their script would come from elsewhere
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "substitution"]
myst_heading_anchors = 4
told = HERE / "told.json"
myst_substitutions = json.loads(told.read_text()) if told.exists() else {}
suppress_warnings = ["myst.header"]  # a notebook's outputs may begin with any level

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_extra_path = ["extra"]  # for programs: at the root of the site
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_opensearch = ""
html_permalinks_icon = "#"
html_use_index = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
