"""How heavy the pages of the built site are and how soon they answer: ``python -m helpers.collection.site.speed``.

Bytes are of the files, the same on every machine, and have limits. Times and frames per second are of this machine and its
headless Chromium, which gets the pages from a server beside it: they say what a page costs a browser, and nothing of a network.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pandas as pd
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from helpers import cli
from helpers.collection.site import build, built

MOST_BYTES = {  # with styles, scripts and data, before pictures
    "index.html": 300_000, "which.html": 1_000_000, "fits.html": 1_000_000, "features.html": 400_000,
    "throughput.html": 1_000_000, "clients.html": 400_000, "race.html": 1_000_000, "batch.html": 400_000, "cache.html": 400_000,
}  # fmt: skip
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NOT_HERE = "no Chromium on this machine: install it, or run `python -m playwright install chromium`"
STREAMS = 100  # of the race that is timed
FRAMES_S = 3  # for so long its frames are counted
DATA = re.compile(r'(<script type="application/json" id="races">)(.*?)(</script>)', re.S)
FIRST_INPUT = """globalThis.firstInput = new Promise(done => {
    new PerformanceObserver(list => done(list.getEntries()[0].duration)).observe({ type: "first-input", buffered: true });
    setTimeout(() => done(NaN), 5000);
})"""  # a browser that tells of none is waited for no longer
LOADED = "() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
FRAMES = """seconds => new Promise(done => {
    const stamps = [];
    const frame = now => {
      stamps.push(now);
      if (now - stamps[0] < seconds * 1000) requestAnimationFrame(frame); else done(stamps);
    };
    requestAnimationFrame(frame);
})"""


class NoBrowser(RuntimeError):
    """There is no browser to measure with."""


class TooHeavy(ValueError):
    """Pages with more bytes than :data:`MOST_BYTES`: a line for each."""


def page_bytes(site: Path, name: str) -> int:
    """Bytes of a page of ``site`` with its styles and scripts, before pictures; its data stand in the page itself."""
    files = {(site / address.partition("?")[0]).resolve() for address in built.page(site / name).loads}
    return sum(file.stat().st_size for file in {site / name, *files} if file.suffix in (".html", ".css", ".js"))


def check(site: Path) -> None:
    """Raise :class:`TooHeavy` for the pages of ``site`` that are heavier than :data:`MOST_BYTES` allows."""
    found = {name: page_bytes(site, name) for name in MOST_BYTES}
    heavy = [f"{name} has {one:,} bytes, more than {MOST_BYTES[name]:,}" for name, one in found.items() if one > MOST_BYTES[name]]
    if heavy:
        raise TooHeavy("\n".join(heavy))


class _Server(http.server.ThreadingHTTPServer):
    """A server that does not complain of a browser which has left in the middle of an answer."""

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """``folder`` on a server of its own at 127.0.0.1 while the block runs; the address of its root, which ends with a slash."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    with _Server(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium while the block runs: the system's, else Playwright's own; :class:`NoBrowser` without one."""
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, CHROMIUMS)), playwright.chromium.executable_path)
        if not Path(found).exists():
            raise NoBrowser(NOT_HERE)
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


def opened(page: Page, address: str) -> dict[str, float]:
    """Open ``address`` in a new tab and press a key as soon as the page has been read; times in ms.

    ``loaded_ms`` is from the start of the navigation to the end of DOMContentLoaded, with the page's scripts done;
    ``first_input_ms`` from the key to the next paint, in steps of 8 ms (Event Timing, W3C).
    """
    page.add_init_script(FIRST_INPUT)
    page.goto(address, wait_until="domcontentloaded")
    page.keyboard.press("Tab")
    found = {"loaded_ms": page.evaluate(LOADED), "first_input_ms": page.evaluate("firstInput")}
    page.wait_for_load_state("load")  # the server is still giving it pictures
    return found


def crowded(text: str, streams: int = STREAMS) -> str:
    """The page of the race ``text`` with ``streams`` lanes in each way: a mock, its own lanes again and again."""

    def more(match: re.Match) -> str:
        races = json.loads(match[2])
        for way in (way for race in races for way in race["ways"]):
            way["lanes"] = [way["lanes"][number % len(way["lanes"])] for number in range(streams)]
        return match[1] + json.dumps(races, ensure_ascii=False).replace("<", "\\u003c") + match[3]

    return DATA.sub(more, text)


def frames(page: Page, address: str) -> dict[str, float]:
    """Play the race at ``address`` with :data:`STREAMS` lanes: frames per second, the longest wait for one, the work for each.

    The work is what the page's main thread does, in ms for a frame; below 16.7 there is time for 60 in a second.
    """
    page.route("**/race.html", lambda route: route.fulfill(response=(got := route.fetch()), body=crowded(got.text())))
    page.goto(f"{address}race.html")
    page.locator("#play").click()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before_s = busy_s(session)
    stamps = page.evaluate(FRAMES, FRAMES_S)
    work_s = busy_s(session) - before_s
    waits = [after - before for before, after in pairwise(stamps)]
    return {
        "frames_per_s": 1000 * len(waits) / sum(waits),
        "longest_ms": max(waits),
        "work_ms": 1000 * work_s / len(waits),
    }


def busy_s(session: CDPSession) -> float:
    """Seconds that the main thread of the session's page has worked, as Chromium's ``Performance.getMetrics`` counts them."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def measure(browser: Browser, site: Path, names: Iterable[str] = MOST_BYTES) -> tuple[pd.DataFrame, Mapping[str, float]]:
    """A row for each page of ``names``: bytes, and the times of :func:`opened`; and what :func:`frames` gives."""
    rows = {}
    with served(site) as address:
        for name in names:
            with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
                rows[name] = {"bytes": page_bytes(site, name)} | opened(context.new_page(), address + name)
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            race = frames(context.new_page(), address)
    return pd.DataFrame.from_dict(rows, orient="index"), race


def told(pages: pd.DataFrame, race: Mapping[str, float]) -> str:
    """The figures of :func:`measure` as text."""
    shown = pages.astype({"bytes": int}).to_string(formatters={"bytes": "{:,}".format}, float_format="{:.0f}".format)
    return (
        f"{shown}\nthe race with {STREAMS} lanes: {race['frames_per_s']:.0f} frames per second, "
        f"the longest wait for one {race['longest_ms']:.0f} ms, {race['work_ms']:.1f} ms of work for each"
    )


def main() -> int:
    """The command; returns its exit code: 1 if a page is too heavy."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.site.speed", description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, nargs="?", default=build.SITE, help="the built site; default: site/")
    site = parser.parse_args().site

    def program() -> None:
        if not (site / "index.html").is_file():
            raise built.SiteError(f"{site} has no page: run `nox -s site`")
        with chromium() as browser:
            print(told(*measure(browser, site)))
        check(site)

    return cli.finish(program, built.SiteError, NoBrowser, TooHeavy, stopped="nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
