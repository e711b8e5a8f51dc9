"""The site, really built and opened in a real browser, from its files and from a server, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import accessible
import httpx
import pytest
from books import NOTEBOOKS
from leftovers import wait_until
from pointers import at

from helpers import formatting, frameworks, paths, records
from helpers.bench import timing
from helpers.collection import claims
from helpers.collection.site import batch, build, built, clients, curves, fits, published, racing, sources, speed, verdicts
from helpers.lessons.decision import choose
from helpers.lessons.race.lanes import WAYS, Lane
from helpers.lessons.scaling import parallelism
from helpers.studies import conformance, peers
from helpers.weights import capacity
from helpers.weights.sizes import GIB

PYTHON = paths.REPOSITORY / ".venvs" / "site" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OWN = (
    "index.html",
    "take_home.html",
    "gpu.html",
    "setup.html",
    "bench.html",
    "notebooks.html",
    "layout.html",
    "which.html",
    "fits.html",
    "features.html",
    "throughput.html",
    "clients.html",
    "race.html",
    "batch.html",
    "cache.html",
    "data.html",
    "search.html",
)  # beside the notebooks
SHOWN = {  # to axe, which takes its time
    "light": OWN,
    "dark": ("features.html", "throughput.html", "clients.html", "batch.html", "cache.html", "notebooks/02_transformers.html"),
}
ASKED = {"light": {}, "dark": {"only": ["color-contrast", "link-in-text-block"]}}  # what other colours can change
STEPPED = {"batch.html": "batches", "cache.html": "caches"}  # pages of an engine's steps, and where their data stand
OPENED = {"features.html": "#grid button", "throughput.html": "#chart .mark", "clients.html": "#clients-in-order button"}
CHAT = {"work": "chat", "device": "datacentre", "users": "hundred"}
SCRIPTS = re.compile(r"<script[^>]* src=\"([^\"]+)\"|<link[^>]* href=\"([^\"]+\.css[^\"]*)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site of the committed files, built once, without a warning; a notebook that has not run is a page all the same."""
    if not PYTHON.exists():
        pytest.skip("the environment of the site is not there: `nox -s site` makes it")
    folder = tmp_path_factory.mktemp("site")
    build.build(PYTHON, folder / "some" / "where", folder / "work", unfinished=True)
    return folder / "some" / "where"


@pytest.fixture
def page(browser, site):
    """A tab without a network; its errors and what it asked for are in ``page.seen``."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield watched(context)
    context.close()


def watched(context):
    page = context.new_page()
    page.seen, page.faults = [], []
    page.on("request", lambda request: page.seen.append(request.url))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text))
    return page


@pytest.fixture
def server(site):
    """The site on a server of its own, not at its root; the address of its folder."""

    with speed.served(site.parent.parent) as address:
        yield f"{address}some/where/"


# --- its files ---


def test_every_notebook_is_a_page_in_a_chain(site):
    """Each with its header, and with the next one at its foot."""
    for path, after in zip(NOTEBOOKS, [*NOTEBOOKS[1:], None]):
        text = (site / "notebooks" / f"{path.stem}.html").read_text()
        rows = re.findall(r"<td><p><strong>(.+?)</strong></p></td>", text)

        assert {"Before this", "Minutes", "Hardware", "Run it", "Outputs committed"} <= set(rows), path.name
        assert after is None or re.search(rf'class="next-page" href="{after.stem}\.html"', text), path.name
        assert (site / "files" / path.name).exists() or f"{path.name}" in text, path.name


def test_nothing_is_loaded_from_another_address(site):
    """No tag that loads names one, in any page; and what the build looks at finds nothing either."""
    loads = re.compile(r"<(?:script|img|link|iframe|source|object|embed)\b[^>]*(?:src|href|data)=[\"'](?:[a-z]+:)?//[^\"']+")
    found = {file.name: loads.findall(file.read_text()) for file in built.html(site)}

    assert {name: tags for name, tags in found.items() if tags} == {}
    assert list(built.foreign(site)) == []


def test_every_link_of_its_own_leads_somewhere(site):
    """To a file that is there, and to a place in it; those of the data too."""
    claimed = json.loads((site / "claims.json").read_text())["claims"]
    named = re.findall(r"\]\((.+?)\)", (site / "llms.txt").read_text())
    for address in [*(row["page"] for row in claimed if row["page"]), *named]:
        file, _, place = address.partition("#")
        assert (site / file).is_file(), address
        assert not place or place in built.page(site / file).ids, address
    assert list(built.broken(site)) == []


def test_the_published_data_are_what_their_schemas_say(site):
    """As files, with the schema beside each."""
    for name in published.SCHEMAS:
        content = json.loads((site / name).read_text())
        assert (site / content["schema"]).exists()
        published.check(name, content)


def test_every_number_of_the_tables_is_in_its_record(site):
    """The row names a file and a place; what stands there is what stands in the row."""
    text = (site / "throughput.html").read_text()
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    assert len(rows) > 20
    for _, cells in rows:
        told = re.findall(r"<td>([^<]*)</td>", cells)
        file, pointer = re.findall(r"<code>(.*?)</code>", cells)
        level = at(json.loads((paths.REPOSITORY / file).read_text()), pointer)
        figures = [level[key] | {"repeats": level["repeats"]} for key in ("output_tokens_per_s", *curves.LATENCIES)]

        assert told[1:-1] == [formatting.told(figure, ".4g") for figure in figures]
        assert told[-1] == str(level["repeats"])


def tables(site, name: str) -> list[tuple[str, list[list[str]]]]:
    """The tables of a page: the caption, and of each row the texts of its cells, the last two the file and the pointer."""
    found = []
    for caption, body in re.findall(r"<caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>", (site / name).read_text(), re.S):
        rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body)
        cells = [[title, *re.findall(r"<td>([^<]*)</td>|<code>(.*?)</code>", rest)] for title, rest in rows]
        told = [[title, *("".join(pair) for pair in rest)] for title, *rest in cells]
        found.append((html.unescape(caption), [[html.unescape(cell) for cell in row] for row in told]))
    return found


def test_every_cell_of_who_does_what_is_its_records(site):
    """What is ignored first; the verdict in the caption, what came back in the row; no cell of a newest record is missing."""
    found, seen = tables(site, "features.html"), []
    for caption, rows in found:
        verdict, count = re.match(r"(.+?), .*: (\d+) of \d+$", caption).groups()
        assert int(count) == len(rows)
        for label, feature, detail, file, pointer in rows:
            record = json.loads((paths.REPOSITORY / file).read_text())
            assert at(record, pointer) == {"verdict": verdict.lower(), "detail": detail}, (file, pointer)
            name = pointer.split("/")[2]
            assert (label, feature) == (frameworks.label(name, records.on_gpu(record)), pointer.split("/")[3])
            seen.append((file, pointer))
    cells = sum(len(of) for _, record in sources.newest(conformance.NAME) for of in record["cells"].values())

    assert [caption.partition(",")[0].lower() for caption, _ in found[: len(verdicts.ORDER)]] == list(verdicts.ORDER)
    assert len(seen) == len(set(seen)) == cells


def test_every_number_of_the_clients_is_in_its_record(site):
    """Said and done are medians of its rounds with their spread, the error stands in its summary; no row is missing."""
    seen = []
    for caption, rows in tables(site, "clients.html"):
        for title, day, version, *told, rounds, file, pointer in rows:
            record = json.loads((paths.REPOSITORY / file).read_text())
            kept, source = at(record, pointer), record["provenance"]
            mine = (kept["client"], kept["streams"])
            good = [run for run in record["runs"] if (run["client"], run["streams"]) == mine and run["error"] is None]
            load = next(one for one in source["plan"]["loads"] if one["streams"] == kept["streams"])
            figures = []
            for key, of_run in (
                ("ttft_ms",) * 2,
                ("output_tokens_per_s_percent", "output_tokens_per_s"),
                ("itl_p99_percent", "itl_p99_ms"),
            ):
                both = [timing.figure(run[side][of_run] for run in good) for side in ("says", "truth")]
                figures += [formatting.told(figure and vars(figure), ",.2f") for figure in both]
                figures.append(formatting.told(kept[key], "+,.2f"))

            assert told == figures, (file, pointer)
            assert title == clients.title(record, kept["client"]) and source["date"].startswith(day)
            assert version == ", ".join(f"{name} {number}" for name, number in source["versions"][kept["client"]].items())
            assert int(rounds.partition(",")[0]) == kept["rounds"] == len(good)
            numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", caption)]
            assert {kept["streams"], load["requests"], load["tokens"]} <= set(numbers), caption
            seen.append((file, pointer))

    assert len(seen) == len(set(seen)) == sum(len(record["summary"]) for _, record in sources.every(peers.NAME))


def of_steps(site, name: str) -> list[tuple[list[str], dict, dict, dict]]:
    """Of a page of steps each row of the table of steps, with the step, its run and the record that the row names."""
    found = []
    for caption, rows in tables(site, name):
        if caption.startswith("The steps"):
            for *cells, file, pointer in rows:
                record = json.loads((paths.REPOSITORY / file).read_text())
                assert cells[0] == f"Step {pointer.rpartition('/')[2]}"
                found.append((cells[1:], at(record, pointer), at(record, pointer.partition("/steps/")[0]), record))
    return found


def figures(step: dict) -> list[str]:
    """When a step began and how long it took, of all its passes."""
    took = formatting.told(vars(timing.figure(step["took_ms"])), ",.1f")
    return [f"{timing.figure(step['at_ms']).median:,.1f}", took]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_every_number_of_the_batch_is_in_its_record(site):
    """Times, tokens of prefill by request, who is in decode, who waits, who ended; every step of a newest record is there."""
    rows = of_steps(site, "batch.html")
    for cells, step, run, _ in rows:
        prompt = {name: run["requests"][name]["prompt_tokens"] for name in step["scheduled"]}
        prefill = {name: tokens for name, tokens in step["scheduled"].items() if step["computed"][name] < prompt[name]}
        decode = [name for name in step["scheduled"] if name not in prefill]

        assert all(step["scheduled"][name] == 1 for name in decode)
        assert cells[:2] == figures(step) and cells[2] == str(sum(step["scheduled"].values()))
        assert cells[3] == (", ".join(f"{name} {tokens}" for name, tokens in prefill.items()) or "-")
        for cell, names in zip(cells[4:], (decode, step["waiting"], step["ended"]), strict=True):
            assert re.findall(r"\b[A-Z]\b", cell) == names

    assert len(rows) == sum(len(record["runs"]["batch"]["steps"]) for _, record in sources.newest("steps"))


def test_every_number_of_the_cache_is_in_its_record(site):
    """Times, computed tokens, the blocks held and whose, kept, evicted; every step of a newest record is there."""
    rows = of_steps(site, "cache.html")
    before = None
    for cells, step, run, record in rows:
        before = None if step is run["steps"][0] else before
        held = {block for own in step["blocks"].values() for block in own}
        kept = [block for block in range(record["pool"]["blocks"]) if step["contents"][block] and block not in held]
        lost = [block for block, content in enumerate(before or []) if content and step["contents"][block] != content]
        before = step["contents"]

        assert cells[:4] == [*figures(step), str(sum(step["scheduled"].values())), str(len(held))]
        whose = dict(one.split(": ") for one in cells[4].split("; "))
        assert {name: listed(told) for name, told in whose.items()} == step["blocks"]
        assert [listed(cell) for cell in cells[5:]] == [kept, lost]

    assert len(rows) == sum(len(record["runs"]["cache"]["steps"]) for _, record in sources.newest("steps"))


def listed(told: str) -> list[int]:
    """The numbers in words: ``1 to 3 and 7`` are 1, 2, 3, 7; a dash is none."""
    found = []
    for part in re.split(", | and ", told if told != "-" else ""):
        ends = numbers(part)
        found += range(ends[0], ends[-1] + 1) if ends else []
    return found


@pytest.mark.parametrize("name", STEPPED)
def test_every_number_in_the_words_for_a_step_is_in_its_record(site, name):
    """What was asked and given, its sums and differences, the limits, blocks that are held in it or were before it."""
    text = (site / name).read_text()
    data = json.loads(re.search(rf'id="{STEPPED[name]}">(.*?)</script>', text, re.S)[1])
    for one in data:
        record = json.loads((paths.REPOSITORY / one["file"]).read_text())
        for shown in one["steps"]:
            step, run = at(record, shown["at"]), at(record, shown["at"].partition("/steps/")[0])
            done = {key: (step["computed"][key], step["scheduled"][key]) for key in step["scheduled"]}
            asked = [value for key in done for value in run["requests"][key].values() if isinstance(value, int)]
            prefill = sum(tokens for key, (before, tokens) in done.items() if before < run["requests"][key]["prompt_tokens"])
            tokens = sum(step["scheduled"].values())
            right = {*asked, *record["provenance"]["limits"].values(), tokens, prefill, sum(n == 1 for _, n in done.values())}
            for key, (before, count) in done.items():
                like = min(run["requests"][key]["like_tokens"], run["requests"][key]["prompt_tokens"] - 1)
                left = run["requests"][key]["prompt_tokens"] - before
                could = like // record["pool"]["block_tokens"] * record["pool"]["block_tokens"] - before
                right |= {before, before + 1, before + count, left, could}
            right |= set(range(1, record["pool"]["blocks"])) if name == "cache.html" else set()

            assert set(numbers(shown["said"])) <= right, (shown["at"], shown["said"])


@pytest.mark.parametrize("name", STEPPED)
def test_every_number_of_the_requests_is_in_its_record(site, name):
    """What was asked, when it joined, when its prompt was whole and when it ended."""
    seen = 0
    found = [record for _, record in sources.newest("steps")]
    asked_for = [rows for caption, rows in tables(site, name) if caption.startswith("The requests")]
    for record, rows in zip(found, asked_for, strict=True):
        run = record["runs"][name.removesuffix(".html")]
        for key, *cells in rows:
            asked, steps_of = run["requests"][key], run["steps"]
            mine = [number for number, step in enumerate(steps_of) if key in step["scheduled"]]
            prefill = [number for number in mine if steps_of[number]["computed"][key] < asked["prompt_tokens"]]

            assert cells[:2] == [str(asked["prompt_tokens"]), str(asked["output_tokens"])] and cells[-1] == str(mine[-1])
            if name == "batch.html":
                assert [cells[2], listed(cells[3]), cells[4]] == [str(asked["joins_step"]), prefill, str(prefill[-1])]
            else:
                assert numbers(cells[2]) == ([asked["like_tokens"]] if asked["like"] else [])
                assert [cells[3], *numbers(cells[4])] == [str(asked["joins_step"]), steps_of[mine[0]]["computed"][key]]
            seen += 1
    assert seen == sum(len(record["runs"][name.removesuffix(".html")]["requests"]) for record in found)


def test_the_front_page_counts_the_claims_as_they_are(site):
    """No number in it is typed."""
    text = re.sub(r"<[^>]+>", "", (site / "index.html").read_text())
    counts = claims.counts()

    assert f"Of its {len(claims.load())} sentences {counts['holds']} hold, " in text
    assert f"{counts['outdated']} are outdated, {counts['wrong']} are wrong" in text


@pytest.mark.parametrize("name", speed.MOST_BYTES)
def test_a_page_is_light(site, name):
    """With its styles and scripts, before pictures; those are counted that its tags name, each once."""
    files = {address.partition("?")[0] for pair in SCRIPTS.findall((site / name).read_text()) for address in pair if address}
    counted = speed.page_bytes(site, name)

    assert len(files) > 3
    assert counted == sum((site / file).stat().st_size for file in [name, *files]) <= speed.MOST_BYTES[name]


def test_a_page_that_is_too_heavy_is_named(site, monkeypatch):
    """With its bytes and the limit; the others are not."""
    monkeypatch.setitem(speed.MOST_BYTES, "race.html", 1000)
    with pytest.raises(speed.TooHeavy, match=r"^race\.html has [\d,]+ bytes, more than 1,000$"):
        speed.check(site)


# --- in a browser ---


def test_every_page_opens_from_its_file_on_a_phone(page, site):
    """Without an error, without another address, and none is wider than the window."""
    page.set_viewport_size({"width": 390, "height": 800})
    wide = {}
    for file in built.html(site):
        page.goto(file.as_uri())
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
            wide[file.name] = width

    assert wide == {}
    assert page.faults == []
    assert [url for url in page.seen if not url.startswith((site.as_uri(), "data:"))] == []


@pytest.mark.parametrize(("width", "height", "whole"), [(1280, 800, True), (390, 800, False)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_answers(page, site, width, height, whole, scheme):
    """What it is, which one, how to start, what the evidence looks like: no scrolling; on a wide one with the whole picture."""
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.goto((site / "index.html").as_uri())
    page.wait_for_load_state("load")
    asked = ["side by side", "Which one should I take?", "How do I start?", "pip install nox", "the median of a record"]
    ends = {text: bottom(page.locator("article").get_by_text(text).first) for text in asked}
    picture = page.locator("article img").first

    assert {text: end for text, end in ends.items() if end > height} == {}
    assert bottom(picture) <= height if whole else picture.bounding_box()["y"] < height


def bottom(place) -> float:
    """Where an element ends, in pixels from the top of the window."""
    box = place.bounding_box()
    return box["y"] + box["height"]


def test_how_soon_the_pages_answer(browser, site, capsys):
    """It is told, and judged by nobody but the reader: a time is of this machine. Of a hundred streams frames are counted."""
    names = ("index.html", "race.html")
    pages, race = speed.measure(browser, site, names)
    with capsys.disabled():
        print(f"\n{speed.told(pages, race)}")

    assert dict(pages["bytes"]) == {name: speed.page_bytes(site, name) for name in names}


def test_a_crowded_race_has_as_many_lanes_as_asked(site):
    """A mock: its own lanes again and again, and nothing else changes."""
    text = (site / "race.html").read_text()
    before, after = (speed.DATA.split(one) for one in (text, speed.crowded(text, 7)))
    own, more = ([way["lanes"] for race in json.loads(one[2]) for way in race["ways"]] for one in (before, after))

    assert (before[0], before[-1]) == (after[0], after[-1])
    assert more == [[lanes[number % len(lanes)] for number in range(7)] for lanes in own]


def test_a_browser_that_leaves_in_the_middle_is_no_error(tmp_path, capfd):
    """It closes a tab while a picture is on its way: nothing is printed, and the server answers the next one."""
    (tmp_path / "large.bin").write_bytes(bytes(50_000_000))
    (tmp_path / "small.txt").write_text("here")
    with speed.served(tmp_path) as address:
        with socket.create_connection(("127.0.0.1", urlsplit(address).port)) as one:
            one.sendall(b"GET /large.bin HTTP/1.0\r\n\r\n")
            one.recv(1000)
        assert wait_until(lambda: not any("process_request_thread" in thread.name for thread in threading.enumerate()))
        assert httpx.get(f"{address}small.txt").text == "here"

    assert capfd.readouterr().err == ""


def test_without_a_site_there_is_nothing_to_measure(monkeypatch, capsys, tmp_path):
    """One line that says what to do."""
    monkeypatch.setattr("sys.argv", ["speed", str(tmp_path)])
    assert speed.main() == 1
    assert capsys.readouterr().err == f"{tmp_path} has no page: run `nox -s site`\n"


def test_it_is_found_and_served_from_any_path(page, server):
    """The search knows the notebooks; nothing but the folder is asked for."""
    page.context.set_offline(False)
    page.goto(f"{server}search.html?q=RadixAttention")
    page.wait_for_selector("#search-results li a")
    titles = page.locator("#search-results li a").all_inner_texts()

    assert any("SGLang" in title for title in titles)
    assert [url for url in page.seen if not url.startswith((server, "data:"))] == []
    assert page.faults == []


def test_the_search_works_from_a_file(page, site):
    """Titles without excerpts, for which a browser would have to read other files."""
    page.goto(f"{(site / 'search.html').as_uri()}?q=RadixAttention")
    page.wait_for_selector("#search-results li a")

    assert any("SGLang" in title for title in page.locator("#search-results li a").all_inner_texts())
    assert page.faults == []


@pytest.mark.parametrize("scheme", SHOWN)
def test_pages_are_accessible(page, site, scheme):
    """axe finds nothing: contrast, headings, landmarks, names, tables, what is scrolled."""
    page.emulate_media(color_scheme=scheme)
    found = {}
    for name in SHOWN[scheme]:
        page.goto((site / name).as_uri())
        page.wait_for_load_state("load")
        found[name] = accessible.faults(page, **ASKED[scheme])

    assert {name: faults for name, faults in found.items() if faults} == {}


def test_what_leads_back_to_the_top_is_accessible(page, site):
    """It appears when a reader scrolls up."""
    page.goto((site / "teaching.html").as_uri())
    page.mouse.move(600, 400)
    page.mouse.wheel(0, 2000)
    page.wait_for_function("scrollY >= 2000")
    page.mouse.wheel(0, -300)
    page.locator(".back-to-top").wait_for()

    assert accessible.faults(page) == []


def test_what_is_not_accessible_is_found(page, site):
    """A picture without a text and a pale one, put into a page that is in order."""
    page.goto((site / "index.html").as_uri())
    page.evaluate("""document.querySelector("article").insertAdjacentHTML(
        "beforeend", '<img src="data:,"><p style="color: #ccc; background: #fff">pale</p>')""")

    assert [rule for rule, _ in accessible.faults(page)] == ["color-contrast", "image-alt"]


@pytest.mark.parametrize("name", OPENED)
def test_what_a_click_opens_is_accessible_and_stays(page, site, name):
    """By the keyboard, on a phone too; axe finds nothing in it, and it is not wider than the window."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((site / name).as_uri())
    page.locator(OPENED[name]).first.focus()
    page.keyboard.press("Enter")

    assert page.locator("#provenance dt").count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.faults == []  # axe, which asks for the styles, adds some
    assert accessible.faults(page) == []


def test_the_decision_says_what_python_says(page, site):
    """By an address with answers; a claim's number leads to the place of its cell."""
    address = "&".join(f"{key}={value}" for key, value in CHAT.items())
    page.goto(f"{(site / 'which.html').as_uri()}#{address}")
    found = choose.shortlist(**CHAT)
    links = page.locator("#details .rests a").evaluate_all("links => links.map(link => link.getAttribute('href'))")

    assert page.locator("#summary").inner_text() == choose.ranked(choose.load(), found.groups)
    assert links
    for link in links:
        file, _, place = link.partition("#")
        assert not place or place in built.page(site / file).ids, link


def test_a_mark_opens_where_its_figure_comes_from(page, site):
    """With the keyboard alone: the record's file, the place in it, the versions."""
    page.goto((site / "throughput.html").as_uri())
    mark = page.locator("#chart .mark").first
    mark.focus()
    page.keyboard.press("Enter")
    told = page.locator("#provenance").inner_text()
    point = json.loads(page.locator("#curves").text_content())["groups"][0]["curves"][0]["points"][0]

    assert point["file"] in told and point["at"] in told
    assert all(f"{name} {version}" in told for name, version in point["versions"].items())


def test_engines_are_switched_and_groups_chosen(page, site):
    """A mark for each point that is on; of the tables the one of the group."""
    page.goto((site / "throughput.html").as_uri())
    groups = json.loads(page.locator("#curves").text_content())["groups"]
    marks = page.locator("#chart .mark")
    whole = marks.count()
    page.locator("#engines input").first.uncheck()

    assert (whole, marks.count()) == (
        sum(len(curve["points"]) for curve in groups[0]["curves"]),
        sum(len(curve["points"]) for curve in groups[0]["curves"][1:]),
    )
    for number, group in enumerate(groups):
        page.select_option("#group", index=number)
        for key in curves.LATENCIES:
            page.select_option("#latency", key)
            assert marks.count() == sum(len(curve["points"]) for curve in group["curves"])
        shown = [one.inner_text() for one in page.locator(".levels:visible caption").all()]
        assert shown == [group["title"]]
    assert page.faults == []


def test_a_cell_opens_what_was_asked_and_what_came_back(page, site):
    """Every one: with its record, the place in it, and the versions of its server; the chosen one is marked."""
    page.goto((site / "features.html").as_uri())
    record = json.loads(page.locator("#verdicts").text_content())["records"][0]
    for cell in record["cells"]:
        name = f"{cell['feature']}, {cell['framework']}: {cell['verdict']}"
        button = page.get_by_role("button", name=name, exact=True)
        button.press("Enter")
        told = page.locator("#provenance").inner_text()
        started = record["frameworks"][cell["framework"]]

        assert button.get_attribute("aria-pressed") == "true"
        assert all(text in told for text in (name, record["features"][cell["feature"]], record["file"], cell["at"]))
        assert all(" ".join(text.split()) in " ".join(told.split()) for text in (cell["detail"], started["versions"]))
    assert page.locator("#grid [aria-pressed=true]").count() == 1


def test_features_are_filtered_by_framework_and_by_feature(page, site):
    """The grid and the rows of the tables; a table without a row goes."""
    page.goto((site / "features.html").as_uri())
    record = json.loads(page.locator("#verdicts").text_content())["records"][0]
    buttons, rows = page.locator("#grid button"), page.locator(".levels[data-group] tbody tr:visible")
    some = [("", ""), *((name, "") for name in record["frameworks"]), *(("", name) for name in record["features"])]
    for framework, feature in [*some, (list(record["frameworks"])[0], list(record["features"])[0])]:
        page.select_option("#framework", framework)
        page.select_option("#feature", feature)
        wanted = [cell for cell in record["cells"] if framework in ("", cell["framework"]) and feature in ("", cell["feature"])]

        assert buttons.count() == rows.count() == len(wanted) > 0
        assert page.locator(".levels[data-group]:visible").count() == len({cell["verdict"] for cell in wanted})
    assert page.faults == []


def test_clients_stand_in_the_order_of_the_chosen_error(page, site):
    """For every load and figure: the smallest first, one without a figure last and with its reason; one table is shown."""
    page.goto((site / "clients.html").as_uri())
    groups = json.loads(page.locator("#clients").text_content())["groups"]
    for number, group in enumerate(groups):
        page.select_option("#group", index=number)
        for key in clients.FIGURES:
            page.select_option("#figure", key)
            newest = [row | row["figures"][key] for row in group["rows"] if row["newest"]]
            ordered = sorted(newest, key=lambda row: abs(row["off"]["median"]) if row["off"] else float("inf"))
            told = page.locator("#clients-in-order .told").all_inner_texts()

            assert page.locator("#clients-in-order button").all_inner_texts() == [row["client"] for row in ordered]
            for row, text in zip(ordered, told, strict=True):
                assert row["why"] in text if row["why"] else all(one in text for one in row["told"].values())
        assert page.locator(".levels:visible caption").all_inner_texts() == [group["title"]]
    assert page.faults == []


def test_an_earlier_record_is_a_row_below_the_newest(page, site):
    """On demand, with its day; with a mock of a later record, made of the newest one."""
    (file, record), *_ = sources.every(peers.NAME)
    later = {**record, "provenance": {**record["provenance"], "date": "2099-01-01T00:00:00+00:00"}}
    text = (site / "clients.html").read_text()
    before, _, rest = text.partition('<script type="application/json" id="clients">')
    mock = site / "clients_mock.html"
    mock.write_text(before + clients.html([("later.json", later), (file, record)]) + rest.partition("</script>")[2])
    page.goto(mock.as_uri())
    names = page.locator("#clients-in-order .named")
    newest = names.count()
    page.locator("#older").check()
    told = names.all_inner_texts()
    mock.unlink()

    assert len(told) == 2 * newest > 0
    assert all("2099-01-01" in one for one in told[::2])
    assert all(record["provenance"]["date"][:10] in one for one in told[1::2])


def test_the_calculator_says_what_python_says(page, site):
    """Bytes, whether they fit, how many users would; for every model, in several types and sizes."""
    page.goto((site / "fits.html").as_uri())
    asked = [
        (one["name"], dtype, kv_dtype, memory_gib, users, context)
        for one in fits.models()
        for dtype, kv_dtype in (("bfloat16", "bfloat16"), ("q4_0", "fp8"))
        for memory_gib, users, context in ((80, 100, 4096), (24.5, 1, 512))
    ]
    for one, told in zip(asked, page.evaluate("asked => asked.map(one => fit(...one))", asked), strict=True):
        name, dtype, kv_dtype, memory_gib, users, context = one
        sheet = parallelism.of(name).sheet
        found = capacity.ask(sheet, memory_gib * GIB, users=users, context=context, dtype=dtype, kv_dtype=kv_dtype)

        assert told == {key: getattr(found, key) for key in told}, one


def test_the_calculator_answers_what_is_typed(page, site):
    """With the keyboard; what is no number gets a word."""
    page.goto((site / "fits.html").as_uri())
    page.locator("#memory").fill("8")
    assert "It does not fit." in page.inner_text("#answer")
    page.locator("#memory").fill("800")
    assert "It fits." in page.inner_text("#answer")
    page.locator("#users").fill("")
    assert "numbers above 0" in page.inner_text("#answer")
    assert page.faults == []


MOCK_RACE = {  # a mock of a record: two engines, one of which broke off
    "provenance": {
        "date": "2026-01-01T00:00:00+00:00", "machine": {"cpu": "a mock", "cores": 1, "gpus": []}, "versions": {},
        "prompts": {"alone": "Why is the sky blue?", "together": "And at night?"},
    },
    "ways": {
        way: [
            Lane("vllm", ("The", " sky", " is", " blue."), (0.1, 0.2, 0.3, 0.4), ttft_s=0.1, output_tokens_per_s=10).to_dict(),
            Lane("llama-cpp-q4_0", ("It",), (0.05,), error="it ended before its answer did").to_dict(),
        ]
        for way in WAYS
    },
}  # fmt: skip


@pytest.fixture
def race(page, site):
    """The page of the race, opened: with the newest record, or with a mock of one where none is recorded yet."""
    text, missing = (site / "race.html").read_text(), f"<p>{racing.NONE}</p>"
    if missing in text:
        (site / "race_mock.html").write_text(text.replace(missing, racing.html([MOCK_RACE])))
    file = site / ("race_mock.html" if missing in text else "race.html")
    page.goto(file.as_uri())
    yield page
    (site / "race_mock.html").unlink(missing_ok=True)


def test_the_race_shows_what_had_come_by_then(race):
    """At any moment that the reader chooses, forwards and backwards: the pieces whose stamps are past."""
    way = json.loads(race.locator("#races").text_content())[0]["ways"][0]
    stamps = sorted(stamp for lane in way["lanes"] for stamp in lane["at_s"])
    for moment in (stamps[-1], stamps[len(stamps) // 2], 0, stamps[0]):
        race.locator("#time").evaluate("(one, at) => { one.value = at; one.dispatchEvent(new Event('input')); }", moment)
        shown = race.locator("#track p span").evaluate_all("all => all.map(one => one.textContent)")

        assert shown == ["".join(p for p, at in zip(lane["pieces"], lane["at_s"]) if at <= moment) for lane in way["lanes"]]


def test_the_race_plays_to_its_end(race):
    """By the keyboard, four times faster; then every answer is whole and its figures, or its reason, stand there."""
    way = json.loads(race.locator("#races").text_content())[0]["ways"][0]
    race.select_option("#pace", label="4 times faster")
    race.locator("#play").focus()
    race.keyboard.press("Enter")
    race.wait_for_function("document.getElementById('play').textContent === 'Play'")

    assert race.locator("#track .figures").all_inner_texts() == [lane["error"] or lane["figures"] for lane in way["lanes"]]
    assert race.faults == []


def test_the_race_does_not_move_for_who_asked_so(race):
    """It is at its end at once; the answers stand in a table too."""
    race.emulate_media(reduced_motion="reduce")
    race.locator("#play").click()

    assert race.locator("#play").inner_text() == "Play"
    assert race.locator("#time").evaluate("one => one.value === one.max")
    assert race.locator(".levels caption").count() == len(WAYS) * len(json.loads(race.locator("#races").text_content()))


@pytest.fixture(params=STEPPED)
def stepped_page(request, page, site):
    """A page of an engine's steps, opened, and the first of its records."""
    page.goto((site / request.param).as_uri())
    return page, json.loads(page.locator(f"#{STEPPED[request.param]}").text_content())[0]


def shows(page, record: dict, number: int) -> bool:
    """Whether the page is at step ``number``: its words, its time, the frame in the picture and the slider."""
    step = record["steps"][number]
    wide = page.locator("#grid .frame").evaluate("one => Number(one.getAttribute('width')) + 2")
    return (
        page.locator("#said").inner_text() == f"Step {number}, {step['took']} ms. {step['said']}"
        and page.locator("#clock").inner_text() == f"Step {number} of {len(record['steps']) - 1}"
        and page.locator("#step").input_value() == str(number)
        and page.locator("#grid .frame").get_attribute("x") == str(wide * number + 1)
    )


def test_steps_are_chosen_with_the_keyboard(stepped_page):
    """One on, one back, not beyond the ends; with the slider, too."""
    page, record = stepped_page
    last = len(record["steps"]) - 1
    assert shows(page, record, 0)
    for button, number in (("#next", 1), ("#next", 2), ("#back", 1), ("#back", 0), ("#back", 0)):
        page.locator(button).press("Enter")
        assert shows(page, record, number), (button, number)
    for key, number in (("ArrowRight", 1), ("End", last), ("ArrowLeft", last - 1), ("Home", 0)):
        page.locator("#step").press(key)
        assert shows(page, record, number), (key, number)
    assert page.faults == []


def test_a_click_into_the_picture_chooses_its_step(stepped_page):
    """The column that was hit."""
    page, record = stepped_page
    wide = page.locator("#grid .frame").evaluate("one => Number(one.getAttribute('width')) + 2")
    page.locator("#grid svg[role=img]").click(position={"x": wide * 7.5, "y": 100})

    assert shows(page, record, 7)


def test_steps_are_played_to_the_end(stepped_page):
    """By the keyboard, as fast as they were; a reader's own step ends it. Nothing is read out meanwhile."""
    page, record = stepped_page
    page.select_option("#pace", label="as it was")
    page.locator("#play").press("Enter")
    page.locator("#next").press("Enter")
    assert page.locator("#play").inner_text() == "Play" and page.locator("#said").get_attribute("aria-live") == "polite"
    page.locator("#step").press("Home")
    page.locator("#play").press("Enter")
    assert page.locator("#said").get_attribute("aria-live") == "off"
    page.wait_for_function("document.getElementById('play').textContent === 'Play'")

    assert shows(page, record, len(record["steps"]) - 1)
    assert page.locator("#said").get_attribute("aria-live") == "polite" and page.faults == []


def test_steps_do_not_move_for_who_asked_so(stepped_page):
    """The last one is there at once."""
    page, record = stepped_page
    page.emulate_media(reduced_motion="reduce")
    page.locator("#play").click()

    assert page.locator("#play").inner_text() == "Play" and shows(page, record, len(record["steps"]) - 1)


def test_a_step_is_accessible_on_a_phone(stepped_page):
    """In the middle of the run: axe finds nothing, the page is not wider than the window, the frame is in sight."""
    page, record = stepped_page
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    page.locator("#step").press("End")
    frame, place = page.locator("#grid .frame").bounding_box(), page.locator("#grid").bounding_box()

    assert place["x"] <= frame["x"] and frame["x"] + frame["width"] <= place["x"] + place["width"] + 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.faults == []  # axe, which asks for the styles, adds some
    assert accessible.faults(page) == []


def test_the_picture_of_the_batch_has_all_that_is_computed(page, site):
    """A mark for each request in prefill, with its tokens, in decode, and that waits; a bar for each step."""
    page.goto((site / "batch.html").as_uri())
    record = json.loads(page.locator("#batches").text_content())[0]
    prefill = [str(tokens) for request in record["requests"] for step in record["steps"]
               for name, tokens in step["prefill"].items() if name == request["name"]]  # fmt: skip

    assert page.locator("#grid .count").all_text_contents() == prefill
    for kind, key in (("decode", "decode"), ("waits", "waiting")):
        bars = sum(not step["prefill"] for step in record["steps"]) if kind == "decode" else 0
        assert page.locator(f"#grid .{kind}").count() == sum(len(step[key]) for step in record["steps"]) + bars


@pytest.mark.parametrize("slowest", [0, 1, 14, -2, -1])
def test_the_longest_time_is_whole_wherever_it_is(page, site, slowest):
    """Also at the edges; a mock, made of the newest record, in which one step took longest."""
    (file, record), *_ = sources.newest("steps")
    record["runs"]["batch"]["steps"][slowest]["took_ms"] = [98765.4] * 3
    before, _, rest = (site / "batch.html").read_text().partition('<script type="application/json" id="batches">')
    mock = site / "batch_mock.html"
    mock.write_text(before + batch.html([(file, record)]) + rest.partition("</script>")[2])
    page.goto(mock.as_uri())
    told, picture = (page.locator(f"#grid {one}").bounding_box() for one in (".longest", "svg[role=img]"))
    text = page.locator("#grid .longest").text_content()
    mock.unlink()

    assert text == "98,765.4 ms"
    assert picture["x"] <= told["x"] and told["x"] + told["width"] <= picture["x"] + picture["width"]


def test_the_picture_of_the_cache_has_every_block(page, site):
    """A stripe for each holder, a line for what is kept, a cross for what is evicted; the block tables of the step."""
    page.goto((site / "cache.html").as_uri())
    record = json.loads(page.locator("#caches").text_content())[0]
    steps_of = record["steps"]
    held = sum(len(own) for step in steps_of for own in step["held"].values())

    assert page.locator("#grid rect[fill]").count() == held
    assert page.locator("#grid .kept").count() == sum(len(step["kept"]) for step in steps_of)
    assert page.locator("#grid .evicted").count() == sum(len(step["evicted"]) for step in steps_of)
    for number, step in enumerate(steps_of):
        whole, told = {block for own in step["held"].values() for block in own}, page.locator("#counts").inner_text()
        names, books = page.locator("#books dt").all_inner_texts(), page.locator("#books ol")
        boxes = {name: books.nth(row).locator("li").all_inner_texts() for row, name in enumerate(names)}

        assert {name: [numbers(box)[0] for box in own] for name, own in boxes.items()} == step["held"]
        assert bool(page.locator("#books .shared").count()) == (len(whole) < sum(map(len, step["held"].values())))
        assert f"Held: {len(whole)} of {record['blocks']} blocks. Kept: {len(step['kept'])}." in told
        if number < len(steps_of) - 1:
            page.locator("#next").press("Enter")


@pytest.mark.parametrize("name", [*OPENED, *STEPPED])
def test_without_javascript_every_table_is_there(browser, site, name):
    """And no control that would do nothing; notebooks read as they are."""
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((site / name).as_uri())

    assert page.locator(".levels:visible").count() == len(re.findall('class="levels"', (site / name).read_text())) > 0
    assert not page.locator("#explainer").is_visible()
    page.goto((site / "which.html").as_uri())
    assert "This page needs JavaScript" in page.inner_text("article")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_questions_are_accessible_on_a_phone(page, site, scheme):
    """A choice opens by the keyboard; with all of them open axe finds nothing, and the page is not wider than the window."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto((site / "notebooks" / "07_throughput_and_latency.html").as_uri())
    choices = page.locator("#questions details")
    choices.first.locator("summary").press("Enter")
    assert choices.first.locator("p").is_visible() and not choices.nth(1).locator("p").is_visible()
    choices.evaluate_all("all => all.forEach(one => { one.open = true; })")

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.faults == []  # axe, which asks for the styles, adds some
    assert accessible.faults(page) == []


def test_questions_need_no_javascript(browser, site):
    """Each notebook's: a click opens the reason."""
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    for path in NOTEBOOKS[:15]:
        page.goto((site / "notebooks" / f"{path.stem}.html").as_uri())
        choices = page.locator("#questions details")
        choices.last.locator("summary").click()

        assert page.locator("#questions ol > li").count() == 3 and choices.count() >= 9, path.name
        assert choices.last.locator("strong").inner_text() in ("Right.", "No."), path.name
    context.close()


@pytest.mark.parametrize("name", ["index.html", *OPENED, *STEPPED])
def test_nothing_moves_for_who_asked_so(page, site, name):
    """prefers-reduced-motion: no animation and no transition in any element."""
    page.emulate_media(reduced_motion="reduce")
    page.goto((site / name).as_uri())
    moving = page.evaluate("""[...document.querySelectorAll("*")].map(getComputedStyle)
        .filter(style => style.animationName !== "none" || parseFloat(style.transitionDuration) > 0).length""")

    assert moving == 0
