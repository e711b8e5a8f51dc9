"""What the built site is held to: every link of its own leads somewhere, and nothing is loaded from another address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {  # attributes by which a page loads something, by tag
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"), "video": ("src", "poster"),
    "audio": ("src",), "embed": ("src",), "object": ("data",), "track": ("src",), "input": ("src",), "image": ("href",),
    "use": ("href",),
}  # fmt: skip
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
FOREIGN = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.I)
IN_CSS = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", re.I)
IN_SCRIPT = re.compile(
    r"(?:fetch|importScripts|import|new Worker|EventSource|WebSocket)\(\s*[\"'`]((?:https?:|wss?:)?//[^\"'`]+)"
)


class SiteError(ValueError):
    """A built site with something wrong in it: a line for each fault, with page and address."""


@dataclass
class _Page(HTMLParser):
    """What is asked of a page: its ids, its links, what it loads, its style sheets and scripts."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self._inside = tag if tag in ("style", "script") else ""
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [given[name] for name in LOADS.get(tag, ()) if given.get(name)]
        if tag == "link" and LOADED_LINKS & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        self.texts += [given["style"]] if "style" in given else []

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@cache
def _read(file: Path, mtime_ns: int) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def page(file: Path) -> _Page:
    """What a page of the site holds."""
    return _read(file, file.stat().st_mtime_ns)


def html(site: Path) -> list[Path]:
    """Every page of ``site``."""
    return sorted(site.rglob("*.html"))


def broken(site: Path) -> Iterator[str]:
    """A line for each link of the site's own that leads nowhere: to no file, or to no place in it."""
    for file in html(site):
        for address in dict.fromkeys([*page(file).links, *page(file).loads]):
            if reason := _fault(file, address):
                yield f"{file.relative_to(site).as_posix()}: {address} leads nowhere: {reason}"


def _fault(file: Path, address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    if parts.path.startswith("/"):
        return "it begins at the root of the server, and the site may lie anywhere: write it from the page"
    there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not there.is_file():
        return "there is no such file"
    if parts.fragment and there.suffix == ".html" and unquote(parts.fragment) not in page(there).ids | {"top"}:
        return f"{there.name} has no such place"
    return None


def foreign(site: Path) -> Iterator[str]:
    """A line for each thing that a page, a style sheet or a script of the site loads from another address."""
    for file in html(site):
        found = [address for address in page(file).loads if FOREIGN.match(address)]
        for text in page(file).texts:
            found += IN_CSS.findall(text) + IN_SCRIPT.findall(text)
        yield from _lines(site, file, found)
    for suffix, pattern in ((".css", IN_CSS), (".js", IN_SCRIPT), (".svg", IN_CSS)):
        for file in sorted(site.rglob(f"*{suffix}")):
            yield from _lines(site, file, pattern.findall(file.read_text(encoding="utf-8")))


def _lines(site: Path, file: Path, found: list[str]) -> list[str]:
    return [f"{file.relative_to(site).as_posix()}: loads {one} from elsewhere: bring it along" for one in dict.fromkeys(found)]


def check(site: Path) -> str:
    """One line on what was looked at; :class:`SiteError` with a line for each fault."""
    pages = html(site)
    if not pages:
        raise SiteError(f"{site.name}/ has no page: run `nox -s site`")
    if faults := [*broken(site), *foreign(site)]:
        raise SiteError("\n".join(faults))
    links = sum(len(page(file).links) for file in pages)
    return f"{len(pages)} pages, {links} links: every one of its own leads somewhere, nothing is loaded from elsewhere"
