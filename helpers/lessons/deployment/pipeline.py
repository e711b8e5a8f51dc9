"""A restartable pipeline: items go through stages, and all that is known of them lies in one SQLite file.

A stage calls its function for an item outside of any transaction, then writes the result and the
item's new state in one. So a process killed at any point, SIGKILL included, leaves each item
before or after a stage and never between: a restart does again at most the calls that were under
way. The engine may thus be *asked* twice; an item is *written* once, because its key is the
table's primary key.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

TRIES = 3
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, stage TEXT, tries INTEGER NOT NULL DEFAULT 0, reason TEXT, aside INTEGER
        NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY REFERENCES items, value TEXT NOT NULL) WITHOUT ROWID;
"""


class PipelineError(RuntimeError):
    """The pipeline cannot go on: the thing, the reason, the next step. Nothing that was written is lost."""


class Invalid(ValueError):
    """A stage's answer that cannot be used; the stage is tried again, up to ``tries`` times."""


class Hopeless(Invalid):
    """An item that no further try can help: it is set aside at once."""


@dataclass(frozen=True)
class Item:
    """What a stage's function is given. ``value`` is any JSON; ``tried`` counts the tries of this stage before."""

    key: str
    value: object
    tried: int = 0


@dataclass(frozen=True)
class Aside:
    """An item that was set aside: its key, the stage that gave it up, its last reason."""

    key: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Stage:
    """``function`` turns an :class:`Item` into its next value, or raises :class:`Invalid` or :class:`Hopeless`.

    Any other exception stops the run and counts as no try: a server that is away is not the item's fault.
    """

    name: str
    function: Callable[[Item], object]


class Pipeline:
    """Items in the SQLite file ``path``, moved through ``stages`` in their order; made if it is not there."""

    def __init__(self, path: Path | str, stages: Iterable[Stage], *, tries: int = TRIES, workers: int = 4):
        self.stages = tuple(stages)
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or tries < 1 or workers < 1:
            raise ValueError(f"stages {names}, tries={tries}, workers={workers}: stages have different names, counts are above 0")
        self.tries, self.workers = tries, workers
        self.path = Path(path)
        self.database = sqlite3.connect(self.path, isolation_level=None)
        try:
            self.database.execute("PRAGMA synchronous=FULL")  # what is committed survives a loss of power
            self.database.executescript(SCHEMA)
        except sqlite3.Error as error:
            self.database.close()
            raise PipelineError(_say(self.path, error)) from None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_) -> None:
        self.database.close()

    def add(self, items: Mapping[str, object]) -> int:
        """Put in the items that are not there yet; returns how many. Adding the same again changes nothing."""
        before = self._count("items")
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in items.items()]
        self._write(("INSERT INTO items (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", row) for row in rows)
        return self._count("items") - before

    def run(self, only: str | None = None, on_item: Callable[[str, str], None] = lambda key, stage: None) -> None:
        """Take every item as far as it goes, stage by stage, or through the stage ``only``.

        ``on_item(key, stage)`` is called after each write. :class:`PipelineError` for a disk that is full
        or a server that is away; a later run goes on from there.
        """
        if only is not None and only not in [stage.name for stage in self.stages]:
            raise ValueError(f"no stage is called {only!r}: choose one of {', '.join(stage.name for stage in self.stages)}")
        for number, stage in enumerate(self.stages):
            if only in (None, stage.name):
                while self._pass(number, stage, on_item):
                    pass

    def _pass(self, number: int, stage: Stage, on_item) -> int:
        """Try every item that waits before ``stage`` once; returns how many were tried."""
        before = self.stages[number - 1].name if number else None
        query = "SELECT key, value, tries FROM items WHERE stage IS ? AND NOT aside ORDER BY key"
        waiting = iter(self.database.execute(query, (before,)).fetchall())
        tried = 0
        with ThreadPoolExecutor(self.workers) as pool:
            running: dict[Future, Item] = {}
            try:
                while True:
                    for key, value, tries in islice(waiting, self.workers - len(running)):
                        item = Item(key, json.loads(value), tries)
                        running[pool.submit(stage.function, item)] = item
                    if not running:
                        return tried
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        item = running.pop(done)
                        self._keep(item, number, stage, done)
                        on_item(item.key, stage.name)
                        tried += 1
            finally:
                for left in running:
                    left.cancel()

    def _keep(self, item: Item, number: int, stage: Stage, done: Future) -> None:
        """Write what came of ``item`` in one transaction."""
        try:
            value = json.dumps(done.result(), ensure_ascii=False)
        except Invalid as error:
            aside = isinstance(error, Hopeless) or item.tried + 1 >= self.tries
            change = "UPDATE items SET tries = tries + 1, reason = ?, aside = ? WHERE key = ?"
            self._write([(change, (str(error), aside, item.key))])
            return
        except Exception as error:
            reason = f"stage {stage.name!r} stopped at item {item.key!r}: {str(error) or type(error).__name__}"
            raise PipelineError(f"{reason}; every item is kept: run it again") from None
        change = "UPDATE items SET value = ?, stage = ?, tries = 0, reason = NULL WHERE key = ?"
        writes = [(change, (value, stage.name, item.key))]
        if number == len(self.stages) - 1:
            upsert = "INSERT INTO results (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            writes.append((upsert, (item.key, value)))
        self._write(writes)

    def _write(self, statements: Iterable[tuple[str, tuple]]) -> None:
        """All of ``statements`` or none."""
        try:
            self.database.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self.database.execute(statement, values)
            self.database.execute("COMMIT")
        except sqlite3.Error as error:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise PipelineError(_say(self.path, error)) from None

    def _count(self, table: str) -> int:
        return self.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def counts(self) -> dict[str, int]:
        """Items by where they stand: ``new``, a stage's name, ``aside``. Their sum is all that were ever added."""
        query = "SELECT CASE WHEN aside THEN 'aside' ELSE coalesce(stage, 'new') END, count(*) FROM items GROUP BY 1"
        found = dict(self.database.execute(query))
        order = ["new", *(stage.name for stage in self.stages), "aside"]
        return {name: found[name] for name in order if name in found}

    def results(self) -> dict[str, object]:
        """What came out of the last stage, by key."""
        return {key: json.loads(value) for key, value in self.database.execute("SELECT * FROM results ORDER BY key")}

    def aside(self) -> list[Aside]:
        """What was set aside, each with its reason and the stage that gave it up."""
        follows = dict(zip([None, *(stage.name for stage in self.stages)], [stage.name for stage in self.stages]))
        query = "SELECT key, stage, reason FROM items WHERE aside ORDER BY key"
        return [Aside(key, follows[stage], reason) for key, stage, reason in self.database.execute(query)]


def _say(path: Path, error: sqlite3.Error) -> str:
    full = "is full" in str(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    step = "all that was written before is kept: free space and run it again" if full else "check the file and run it again"
    return f"{path.name} cannot be written: {error}; {step}"
