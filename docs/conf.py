"""Sphinx: pages of the committed outputs. Nothing is executed, and nothing is loaded from another address."""

import json
from pathlib import Path

HERE = Path(__file__).parent

project = "LLM inference frameworks, measured"
language = "en"
extensions = ["myst_nb"]
exclude_patterns = ["README.md", "extra", "files", "helpers", "made"]  # of the README the front page takes parts

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
html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_extra_path = ["extra"]  # for programs: at the root of the site
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
templates_path = ["_templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_opensearch = ""
html_permalinks_icon = "#"
html_use_index = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

# What the theme and the tables of Markdown leave out for those who hear a page: levels of headings, names of landmarks, and
# heads of columns that are empty.
MENDED = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="The site">',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    '<th class="head"><p></p></th>': '<td class="head"></td>',
    '<a href="#" class="back-to-top': '<nav aria-label="To the top"><a href="#" class="back-to-top',
    "<span>Back to top</span>\n        </a>": "<span>Back to top</span>\n        </a></nav>",
}


def mend(app, exception):
    """Replace :data:`MENDED` in every page that was built."""
    for page in Path(app.outdir).rglob("*.html") if exception is None else ():
        text = page.read_text(encoding="utf-8")
        for old, new in MENDED.items():
            text = text.replace(old, new)
        page.write_text(text, encoding="utf-8")


def setup(app):
    """What Sphinx calls when it starts."""
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
