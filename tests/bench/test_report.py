"""The report of a run: a table for programs, and a page for people that opens in a browser without a network."""

import csv
import dataclasses
import json
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import accessible
import pytest

from helpers.bench import charts, measure, page, tables
from helpers.bench.__main__ import report
from helpers.bench.charts import Bar, Point
from helpers.bench.client import Endpoint
from helpers.bench.measure import Plan
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

WORST = "</script><b>M & \"m\" 'µ'</b>"  # a model's name that would be part of the page, were it not escaped
SOURCE = {
    "model": WORST, "base_url": "http://127.0.0.1:1/v1", "endpoint": "chat", "date": "2026-11-30T10:00:00+00:00",
    "machine": {"cpu": "a <fast> one"}, "workload_sha256": "0" * 64,
    "instrument": {4: {"ttft_error_s": 1e-4, "rate_error": 0.001, "itl_p99_error": -0.02, "ceiling_events_per_s": 4e4}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> tuple[dict, list]:
    """Three loads of a real run, of which the middle one is refused; with a search's result."""
    plan = Plan(users=(1, 2, 4), input_tokens=8, output_tokens=6, requests_per_user=2, settle=False)

    def script(number: int, body: dict) -> Script:
        return Script(first_s=0.02, gap_s=0.005, tokens_per_event=2, cached_tokens=5 if 9 <= number < 25 else 0)

    with TruthServer(script) as mock:
        levels = measure.measure(Endpoint(mock.base_url, "m"), plan)
    content = report(levels, {**SOURCE, "plan": plan.facts()}, {"ttft_s": 0.2}, 3.6)
    judged = {
        "limits": {"ttft_s": 0.2},
        "share": 0.99,
        "unit": "users",
        "keeps": 2,
        "exceeds": 4,
        "reason": "at 3 it cannot be decided",
    }
    return json.loads(json.dumps(content | {"found": judged})), levels


@pytest.fixture(scope="module")
def written(run) -> str:
    content, levels = run
    return page.html(content, levels, "python -m helpers.bench --users 1,2,4")


class Tags(HTMLParser):
    """Every tag with its attributes, and that each one ends."""

    def __init__(self, content: str):
        super().__init__()
        self.found, self.open = [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_every_section(written):
    """What was found and measured, the client's error, figures, curves, a timeline, warnings, provenance, how to repeat it."""
    titles = [
        "What was measured", "The client&#x27;s own error", "Figures", "Prices", "Curves", "One repeat, request by request",
        "Refusals and warnings", "Where it comes from", "How to repeat it",
    ]  # fmt: skip

    assert [title for title in titles if f"<h2>{title}</h2>" not in written] == []
    assert "2 users keep ttft at most 0.2 s for 99 % of the requests; 4 do not. At 3 it cannot be decided." in written
    assert "<pre>python -m helpers.bench --users 1,2,4</pre>" in written


def test_the_page_needs_nothing_from_elsewhere(written):
    """No script, no address to load from, and far below two megabytes; what a server says of itself stays text."""
    tags = Tags(written)

    assert tags.open == [] and len(written.encode()) < 2_000_000
    assert {tag for tag, _ in tags.found} & {"script", "link", "img", "iframe", "b"} == set()
    assert [one for _, one in tags.found if {"src", "href", "srcset", "action"} & one.keys()] == []
    assert "url(" not in written and "@import" not in written


def test_refusals_and_warnings_are_on_the_page(written, run):
    """The refused load, events of several tokens; and the load has no place in the curves."""
    content, _ = run

    assert content["levels"][1]["output_tokens_per_s"] is None
    assert "at 2: not a measurement: prefix cache: " in written
    assert "at 1: ITL is between events of 2.00 tokens" in written
    assert "at 1; " not in written and "Throughput. output tokens/s over users." in written


def test_a_page_of_a_run_without_figures_says_so(run):
    """Everything was refused: no curve, and no fault."""
    content, levels = run
    refused = [dataclasses.replace(level, refused="not a measurement: all failed") for level in levels]
    made = page.html({**content, "levels": [level.to_dict() for level in refused]}, refused, "x")

    assert "<p>No level has a figure.</p>" in made and "at 1: not a measurement: all failed" in made


def test_the_page_opens_in_a_browser_without_a_network(browser, written, tmp_path):
    """Nothing is asked for, nothing is wrong, and axe finds nothing."""
    file, seen = tmp_path / "report.html", []
    file.write_text(written)
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    opened = context.new_page()
    opened.on("request", lambda request: seen.append(request.url))
    opened.on("pageerror", lambda error: seen.append(str(error)))
    opened.on("console", lambda message: seen.append(message.text))
    opened.goto(file.as_uri())
    faults = accessible.faults(opened)
    pictures = opened.locator("figure > svg").count()
    context.close()

    assert seen == [file.as_uri()] and pictures == 5
    assert faults == []


def test_a_picture_is_told_to_those_who_do_not_see_it():
    """Title and description in one; each value at its load."""
    drawn = charts.lines("TTFT", {"median": [Point(1, 0.5, 0.4, 0.6), Point(8, 2)], "p99": []}, "users", "TTFT, s")
    svg = ElementTree.fromstring(drawn)

    assert svg.attrib["role"] == "img" and svg[0].attrib["id"] == svg.attrib["aria-labelledby"]
    assert svg[0].text == "TTFT. TTFT, s over users. median: 0.5 at 1, 2 at 8."


def test_values_lie_where_they_belong():
    """Twice the load is as far as from one to two; a larger value is higher; the spread is around it."""
    svg = ElementTree.fromstring(charts.lines("x", {"a": [Point(1, 1), Point(2, 2, 1, 3), Point(4, 4)]}, "users", "y"))
    (x1, y1), (x2, y2), (x4, y4) = ((float(c.attrib["cx"]), float(c.attrib["cy"])) for c in svg.iter("circle"))
    (spread,) = (one for one in svg.iter("line") if one.attrib["stroke"] == charts.COLOURS[0])

    assert x2 - x1 == pytest.approx(x4 - x2) and y1 - y2 == pytest.approx((y2 - y4) / 2, abs=0.2)
    assert float(spread.attrib["y1"]) > y2 > float(spread.attrib["y2"])


def test_one_load_and_no_load_can_be_drawn():
    """One point is a picture, none is no picture."""

    assert charts.lines("x", {"a": [Point(5, 0)]}, "users", "y").count("<circle") == 1
    assert charts.lines("x", {"a": []}, "users", "y") == charts.timeline("x", []) == ""


def test_a_timeline_has_two_bars_for_each_request():
    """Pale to the first token, dark to the last, to scale."""
    svg = ElementTree.fromstring(charts.timeline("x", [Bar(0, 1, 2), Bar(0.5, 1, 4)]))
    widths = [float(one.attrib["width"]) for one in svg.iter("rect")]

    assert widths == pytest.approx([widths[0], widths[0], widths[0] / 2, 3 * widths[0]], abs=0.2)


def test_the_table_has_a_row_for_each_load(run):
    """The JSON's figures, flat; what is not defined is empty."""
    content, _ = run
    one, two, four = csv.DictReader(tables.as_csv(content["levels"]).splitlines())

    assert (one["users"], two["users"], four["users"]) == ("1", "2", "4")
    assert float(one["ttft_s_median"]) == content["levels"][0]["ttft_s"]["median"]
    assert float(one["price_per_million_input"]) == content["levels"][0]["price"]["per_million_tokens"]["input"]["median"]
    assert (two["ttft_s_median"], two["output_tokens_per_s_median"], one["ttft_s_p99"]) == ("", "", "")
    assert two["label"].startswith("not a measurement: prefix cache: ")
    assert float(four["goodput_requests_per_s_low"]) > 0


def test_every_figure_of_the_json_has_its_column(run):
    """A figure that is new in the JSON is missed here."""
    (level, *_), _ = run[0]["levels"], run[1]
    known = {*tables.PLAIN, *tables.FIGURES, *tables.TIMES, "prefix_cache", "price"}
    told_elsewhere = {
        "error_kinds", "failures", "prompt_tokens", "output_tokens", "cached_tokens", "answers_at_once", "client_lag_s",
        "per_repeat", "slo", "events_by_kind", "client_machine", "unproven", "server_metrics", "energy",
    }  # fmt: skip

    assert set(level) - known - told_elsewhere == set()


def test_the_command_writes_all_three_and_keeps_the_key_to_itself(tmp_path):
    """JSON, CSV and page of one run; the page says how to repeat it."""
    files = {option: tmp_path / f"figures.{option}" for option in ("json", "csv", "html")}
    asked = [word for option, file in files.items() for word in (f"--{option}", str(file))]
    with TruthServer() as mock:
        command = [sys.executable, "-m", "helpers.bench", "--base-url", mock.base_url, "--model", "m", "--api-key", "sk-secret"]
        small = ["--users", "1,2", "--requests", "2", "--input-tokens", "8", "--output-tokens", "4", "--no-self-test"]
        done = subprocess.run([*command, *small, *asked], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    made = files["html"].read_text()

    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(files["json"].read_text())["levels"]) == len(files["csv"].read_text().splitlines()) - 1 == 2
    assert f"python -m helpers.bench --base-url {mock.base_url} --model m --users 1,2 --input-tokens 8" in made
    assert "sk-secret" not in made and str(tmp_path) not in made and "Not measured: the run was asked to leave" in made
