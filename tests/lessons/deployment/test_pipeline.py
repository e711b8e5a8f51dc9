"""The restartable pipeline: killed, full, and with items that never become valid."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from helpers import paths
from helpers.lessons.deployment import faults, order_pipeline
from helpers.lessons.deployment.pipeline import Hopeless, Invalid, Pipeline, PipelineError, Stage
from helpers.servers import serving

ITEMS = {f"item-{n:02}": f"text {n}" for n in range(10)}


@pytest.fixture(scope="module")
def server():
    with serving.serve("llama-cpp", slots=4, context=256) as running:
        yield running


def upper(item):
    return item.value.upper()


def marked(item):
    return item.value + "!"


def never(item):
    raise Invalid(f"no number in {item.value!r}, try {item.tried + 1}")


def hopeless(item):
    raise Hopeless("it is empty")


def away(item):
    raise ConnectionError("connection refused")


def run(path, *functions, items=ITEMS, **options):
    """A pipeline of stages named after their functions, run to its end and closed."""
    stages = [Stage(function.__name__, function) for function in functions]
    with Pipeline(path, stages, **options) as made:
        made.add(items)
        made.run()
        return made.counts(), made.results(), made.aside()


class TestRun:
    """What goes in comes out."""

    def test_every_item_goes_through_every_stage(self, tmp_path):
        """In order, and is written at the end."""
        counts, results, aside = run(tmp_path / "a.db", upper, marked)

        assert counts == {"marked": 10}
        assert results == {key: text.upper() + "!" for key, text in ITEMS.items()}
        assert aside == []

    def test_adding_again_changes_nothing(self, tmp_path):
        """Not the number of items, nor one that is under way."""
        with Pipeline(tmp_path / "a.db", [Stage("upper", upper)]) as made:
            made.add(ITEMS)
            made.run()

            assert made.add(ITEMS | {"item-99": "new"}) == 1
            assert made.counts() == {"new": 1, "upper": 10}

    def test_a_second_run_asks_nothing_again(self, tmp_path):
        """What is done is done, also for a new process."""
        asked = []
        stages = [Stage("note", lambda item: asked.append(item.key))]
        for _ in range(2):
            with Pipeline(tmp_path / "a.db", stages) as made:
                made.add(ITEMS)
                made.run()

        assert sorted(asked) == sorted(ITEMS)

    def test_one_stage_alone(self, tmp_path):
        """The others wait."""
        with Pipeline(tmp_path / "a.db", [Stage("upper", upper), Stage("marked", marked)]) as made:
            made.add(ITEMS)
            made.run("upper")

            assert made.counts() == {"upper": 10}

    def test_an_unknown_stage_is_said(self, tmp_path):
        """With those that there are."""
        with Pipeline(tmp_path / "a.db", [Stage("upper", upper)]) as made:
            with pytest.raises(ValueError, match="no stage is called 'lower': choose one of upper"):
                made.run("lower")

    @pytest.mark.parametrize("options", [{"tries": 0}, {"workers": 0}])
    def test_bad_numbers_make_no_file(self, tmp_path, options):
        """They are refused before anything is opened."""
        with pytest.raises(ValueError, match="counts are above 0"):
            Pipeline(tmp_path / "a.db", [Stage("upper", upper)], **options)

        assert list(tmp_path.iterdir()) == []


class TestAside:
    """Items that do not become valid."""

    def test_after_its_tries_an_item_is_set_aside_with_its_last_reason(self, tmp_path):
        """Three tries, and the stage that gave up."""
        counts, results, aside = run(tmp_path / "a.db", upper, never, items={"a": "tea"})

        assert (counts, results) == ({"aside": 1}, {})
        assert [(one.key, one.stage, one.reason) for one in aside] == [("a", "never", "no number in 'TEA', try 3")]

    def test_a_hopeless_one_is_set_aside_at_once(self, tmp_path):
        """No second try."""
        asked = []

        def once(item):
            asked.append(item.key)
            hopeless(item)

        run(tmp_path / "a.db", once, items={"a": ""})

        assert asked == ["a"]

    def test_one_that_becomes_valid_goes_on(self, tmp_path):
        """The second try is good; the tries of the next stage begin at 0."""
        tries = []

        def second(item):
            tries.append(item.tried)
            return item.value if item.tried else never(item)

        def after(item):
            tries.append(item.tried)
            return item.value

        counts, _, _ = run(tmp_path / "a.db", second, after, items={"a": "x"})

        assert (tries, counts) == ([0, 1, 0], {"after": 1})

    def test_the_others_are_not_held_up(self, tmp_path):
        """Nine of ten come out."""

        def picky(item):
            return never(item) if item.key == "item-03" else item.value

        counts, results, _ = run(tmp_path / "a.db", picky)

        assert counts == {"picky": 9, "aside": 1}
        assert "item-03" not in results

    def test_a_server_that_is_away_is_no_fault_of_the_item(self, tmp_path):
        """The run stops with one line; nothing is set aside; the next run goes on."""
        path = tmp_path / "a.db"

        with pytest.raises(PipelineError, match="stage 'away' stopped at item .*connection refused; every item is kept"):
            run(path, away)
        with Pipeline(path, [Stage("away", marked)]) as made:
            assert made.counts() == {"new": 10}
            made.run()
            assert made.counts() == {"away": 10}


class TestKilled:
    """SIGKILL at any point."""

    PROGRAM = textwrap.dedent("""
        import sys, time
        from helpers.lessons.deployment.pipeline import Pipeline, Stage

        def slow(item):
            time.sleep(0.01)
            return item.value + "."

        with Pipeline(sys.argv[1], [Stage("one", slow), Stage("two", slow)], workers=3) as made:
            made.add({f"item-{n:02}": "x" for n in range(30)})
            made.run(on_item=lambda key, stage: print(stage, key, flush=True))
    """)

    @pytest.mark.parametrize("lines", [1, 13, 29, 31, 47, 59])
    def test_nothing_is_lost_and_nothing_twice(self, tmp_path, lines):
        """Killed after so many writes; between kill and restart and after it every item stands in one place."""
        path = tmp_path / "a.db"
        command = [sys.executable, "-c", self.PROGRAM, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=paths.REPOSITORY)
        printed = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        printed += process.stdout.readlines()
        process.wait()
        with Pipeline(path, [Stage("one", upper), Stage("two", upper)]) as made:
            between, written = made.counts(), len(made.results())

        again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=paths.REPOSITORY)
        with Pipeline(path, [Stage("one", upper), Stage("two", upper)]) as made:
            after, results = made.counts(), made.results()

        assert sum(between.values()) == 30
        assert written == between.get("two", 0)
        assert after == {"two": 30}
        assert set(results.values()) == {"x.."}
        # A write whose line was not printed yet is done and not done again: at most that one is in neither list.
        writes = [*printed, *again.stdout.splitlines(keepends=True)]
        assert len(writes) == len(set(writes)) and 59 <= len(writes) <= 60


class TestFullDisk:
    """The database cannot grow."""

    def full(self, path):
        """A pipeline whose file may not grow beyond a few pages, as on a full disk."""
        made = Pipeline(path, [Stage("grow", lambda item: item.value * 2000)])
        made.add(ITEMS)
        made.database.execute("PRAGMA max_page_count = 10").fetchone()
        return made

    def test_it_ends_with_one_line_and_loses_nothing(self, tmp_path):
        """What was written stays, the rest waits, and with room again all comes out."""
        with self.full(tmp_path / "a.db") as made:
            with pytest.raises(PipelineError) as error:
                made.run()
            halfway = made.counts()
            made.database.execute("PRAGMA max_page_count = 1000").fetchone()
            made.run()

            assert str(error.value) == (
                "a.db cannot be written: database or disk is full; all that was written before is kept: "
                "free space and run it again"
            )
            assert sum(halfway.values()) == 10 and 0 < halfway["new"] < 10
            assert made.counts() == {"grow": 10}
            assert made.results() == {key: text * 2000 for key, text in ITEMS.items()}

    def test_items_that_do_not_fit_are_added_all_or_none(self, tmp_path):
        """Half a list is worse than an error."""
        with self.full(tmp_path / "a.db") as made:
            with pytest.raises(PipelineError, match="disk is full"):
                made.add({f"more-{n}": "x" * 3000 for n in range(50)})

            assert made.counts() == {"new": 10}

    def test_a_file_that_is_no_database_is_said(self, tmp_path):
        """Before anything is run."""
        (tmp_path / "a.db").write_text("no database at all, but long enough to be looked at" * 30)

        with pytest.raises(PipelineError, match="a.db cannot be written: file is not a database; check the file"):
            Pipeline(tmp_path / "a.db", [Stage("upper", upper)])

    def test_it_is_a_real_sqlite_error(self, tmp_path):
        """The limit raises the very error that a full disk raises."""
        with self.full(tmp_path / "a.db") as made, pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
            made.database.execute("INSERT INTO items (key, value) VALUES ('x', ?)", ("x" * 100_000,))


class TestOrders:
    """The structured pipeline, with llama.cpp in the place of both engines."""

    def command(self, path, url: str) -> list[str]:
        where = [url, "SmolLM2-135M-Instruct"]
        return [
            sys.executable,
            "-m",
            "helpers.lessons.deployment.order_pipeline",
            str(path),
            "--extract",
            *where,
            "--process",
            *where,
        ]

    def add(self, path, items) -> None:
        with Pipeline(path, order_pipeline.stages()) as made:
            made.add(items)

    @pytest.mark.engine
    def test_killed_in_the_middle_it_goes_on_where_it_was(self, tmp_path, server):
        """Eight orders come out once each; the bad ones stand aside, each with its reason."""
        path = tmp_path / "orders.db"
        bad = {"order-900": "", "order-901": "Please send some tea soon."}
        self.add(path, order_pipeline.notes(8) | bad)
        command = self.command(path, server.base_url)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=paths.REPOSITORY)
        for line in process.stdout:
            if line.startswith("extract"):
                process.kill()
                break
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL

        done = subprocess.run(command, capture_output=True, text=True, cwd=paths.REPOSITORY)
        with Pipeline(path, order_pipeline.stages()) as made:
            results, aside = made.results(), made.aside()

        assert done.returncode == 0, done.stderr
        assert len(results) + len(aside) == 10
        assert {one.key: one.stage for one in aside}.items() >= {"order-900": "check", "order-901": "extract"}.items()
        assert "does not stand in the note" in next(one.reason for one in aside if one.key == "order-901")
        for key, result in results.items():
            note = order_pipeline.notes(8)[key]
            assert str(result["order"]["quantity"]) in note and result["order"]["item"] in note

    @pytest.mark.engine
    def test_a_server_that_is_overloaded_stops_it_in_one_line(self, tmp_path, server):
        """Exit code 1, no traceback, every order kept."""
        path = tmp_path / "orders.db"
        self.add(path, order_pipeline.notes(3))
        with faults.proxy(server.base_url) as remote:
            remote.set(faults.Fault("overloaded"))
            ran = subprocess.run(self.command(path, remote.base_url), capture_output=True, text=True, cwd=paths.REPOSITORY)
        with Pipeline(path, order_pipeline.stages()) as made:
            counts = made.counts()

        assert (ran.returncode, counts) == (1, {"check": 3})
        assert len(ran.stderr.splitlines()) == 1
        assert "stage 'extract' stopped at item 'order-00" in ran.stderr and "HTTP 503 from its server" in ran.stderr

    def test_without_a_server_it_says_which_one(self, tmp_path):
        """The stage and the option."""
        path = tmp_path / "orders.db"
        self.add(path, order_pipeline.notes(1))
        command = [sys.executable, "-m", "helpers.lessons.deployment.order_pipeline", str(path)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=paths.REPOSITORY)

        assert ran.returncode == 1
        assert "no server was given for it: give --extract URL MODEL" in ran.stderr

    def test_the_notes_are_the_same_every_time(self):
        """Drawn with a seed, and each within what the input may be."""
        drawn = order_pipeline.notes(20)

        assert drawn == order_pipeline.notes(20) != order_pipeline.notes(20, seed=1)
        assert all(any(good in text for good in order_pipeline.GOODS) for text in drawn.values())
        assert json.dumps(drawn)
