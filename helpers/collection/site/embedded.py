"""The decision page inside a page of the site: its own style, markup and script, kept to themselves."""

from __future__ import annotations

import re

from helpers import paths
from helpers.collection.site import pages

PAGE = paths.REPOSITORY / "vis" / "decision.html"
PLACE = "decision"  # the id of the element that holds it


def decision(text: str) -> str:
    """The part of the page ``text`` that goes into another page: without its title, with links as the site has them.

    Its colours follow the theme's choice of light or dark. :class:`~helpers.collection.site.pages.PageError` if the page is
    not made as this expects.
    """
    style, header, main, rest, script = (
        _between(text, begin, end)
        for begin, end in (
            ("<style>", "</style>"), ("<header>", "</header>"), ("<main>", "</main>"), ("</main>", "<script>"),
            ("<script>", "</script>"),
        )
    )  # fmt: skip
    header = re.sub(r"<h1>.*?</h1>\s*", "", header)
    body = f'<div class="header">{header}</div>\n<div class="main">{main}</div>\n{rest}'
    return (
        f"<style>\n{_nested(style)}</style>\n<div id={PLACE!r}>\n{body}</div>\n"
        f"<script>\n(() => {{\n{_linked(script)}}})();\n</script>\n"
    )


def _between(text: str, begin: str, end: str) -> str:
    if begin not in text or end not in text:
        raise pages.PageError(f"{PAGE.name} has no {begin} ... {end}: make it with `python -m helpers.collection.decision`")
    return text.partition(begin)[2].partition(end)[0]


def _nested(style: str) -> str:
    """The style sheet for what is inside the element alone; of each pair of colours the theme's choice."""
    colours = [dict(re.findall(r"(--[\w-]+): ([^;]+);", rule)) for rule in re.findall(r":root {(.*?)}", style, re.S)]
    if len(colours) != 2:
        raise pages.PageError(f"{PAGE.name} has {len(colours)} sets of colours, not one for light and one for dark")
    light, dark = colours
    both = "".join(f"{name}: light-dark({colour}, {dark.get(name, colour)}); " for name, colour in light.items())
    rest = re.sub(r"^:root {.*?}\n|^@media \(prefers-color-scheme: dark\) {\n.*?\n}\n", "", style, flags=re.M | re.S)
    rest = re.sub(r"^body {", "& {", rest, flags=re.M)
    rest = re.sub(r"\b(header|main)\b(?=[^{}]*{)", r".\1", rest)
    return f"#{PLACE} {{\n{both}\n{rest}}}\n"


def _linked(script: str) -> str:
    """The script with the addresses of notebooks that the site has; it lies beside the folder of notebooks here."""
    script = re.sub(
        r'"\.\./notebooks/((\d\d)_\w+)\.ipynb#cell-id=([\w-]+)"',
        lambda match: f'"notebooks/{match[1]}.html#{pages.anchor(match[2], match[3])}"',
        script,
    )
    return re.sub(r'"\.\./notebooks/(\w+)\.ipynb"', r'"notebooks/\1.html"', script)
