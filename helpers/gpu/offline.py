"""Prompts through an engine's own API, timed; run in the engine's interpreter: ``python -m helpers.gpu.offline JOB``.

Each figure is a line of JSON in the job's ``rows`` file as soon as it is there, so that nothing is
lost when the process ends. Only the standard library is imported before the engine.
"""

from __future__ import annotations

import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median

FIRST_WORD = 259  # below are special tokens and bytes (helpers.gpu.random_model)
SUFFIX_TOKENS = 24  # behind a common prefix, each user's own
RESERVE = 1.3  # times what the last turn took must be left for another one


class Rows:
    """The file of a life's figures."""

    def __init__(self, path: str, left_s: float):
        self.path, self.end = Path(path), time.monotonic() + left_s

    def add(self, kind: str, **fields) -> None:
        """Write one line; what was written stays whatever happens next."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")

    @property
    def left_s(self) -> float:
        return self.end - time.monotonic()

    def time_for(self, seconds: float) -> bool:
        """Whether ``seconds`` are left; if not, the file says so."""
        if self.left_s > seconds:
            return True
        self.add("stopped", reason=f"{self.left_s:.0f} s were left, the next part takes {seconds:.0f} s")
        return False


def prompts(count: int, tokens: int, vocabulary: int, seed: object) -> list[list[int]]:
    """Random token ids; no two prompts begin alike."""
    draw = random.Random(str(seed))
    firsts = draw.sample(range(FIRST_WORD, vocabulary), count)
    return [[first, *draw.choices(range(FIRST_WORD, vocabulary), k=tokens - 1)] for first in firsts]


def turns(users: list[int], repeats: int) -> list[tuple[int, int]]:
    """(repeat, users) in balanced order: rising, falling, rising, so that a drift slows each alike."""
    return [(turn, n) for turn in range(repeats) for n in (users if turn % 2 == 0 else users[::-1])]


def speed(engine, job: dict, rows: Rows) -> None:
    """Warm up, then repeats of every number of users: a whole answer, and one token alone."""
    tokens_in, tokens_out, vocabulary = job["input_tokens"], job["output_tokens"], job["vocabulary"]

    def ask(users: int, out: int, seed: object) -> tuple[float, list[float]]:
        given = prompts(users, tokens_in, vocabulary, seed)
        started = time.perf_counter()
        counts, firsts = engine.generate(given, out)
        took = time.perf_counter() - started
        if counts != [out] * users:
            raise RuntimeError(f"{out} tokens were asked of each of {users}, and came as {sorted(set(counts))}")
        return took, firsts

    took_s = {}
    for users in job["users"]:
        for _ in range(job["warmups"]):
            took_s[users] = ask(users, tokens_out, f"warm {users}")[0]
        ask(users, 1, f"warm one {users}")
    for turn, users in turns(job["users"], job["repeats"]):
        if not rows.time_for(RESERVE * took_s[users]):
            return
        took, firsts = ask(users, tokens_out, f"{users} {turn}")
        rows.add(
            "speed", users=users, repeat=turn, seconds=took, output_tokens=users * tokens_out,
            ttft_s=median(firsts) if firsts else None,
        )  # fmt: skip
        rows.add("first token", users=users, repeat=turn, seconds=ask(users, 1, f"one {users} {turn}")[0])


def prefixes(engine, job: dict, rows: Rows) -> None:
    """All users at once with a long prefix in common, a new one each time; the engine's prefix cache is as its arguments say."""
    how, users, vocabulary = job["prefix"], max(job["users"]), job["vocabulary"]
    took = 0.0
    for turn in range(-1, job["repeats"]):  # the first is a warm-up
        if not rows.time_for(RESERVE * took):
            return
        (common,) = prompts(1, how["input_tokens"] - SUFFIX_TOKENS, vocabulary, f"prefix {turn}")
        given = [common + end for end in prompts(users, SUFFIX_TOKENS, vocabulary, f"ends {turn}")]
        started = time.perf_counter()
        counts, firsts = engine.generate(given, how["output_tokens"])
        took = time.perf_counter() - started
        if turn >= 0:
            rows.add(
                "prefix offline", users=users, repeat=turn, seconds=took, output_tokens=sum(counts),
                ttft_s=median(firsts) if firsts else None, input_tokens=how["input_tokens"],
            )  # fmt: skip


def largest(fits: Callable[[int], bool | None], start: int, most: int, precision: float = 0.05) -> tuple[int, int | None]:
    """The largest number that ``fits``, by doubling and then by halving the gap; and the smallest that does not.

    The gap ends below ``precision``. The second is ``None`` where ``most`` fits. ``fits`` may answer ``None``:
    no time; then the search ends with what it knows.
    """
    good, bad, now = 0, None, start
    while bad is None or bad - good > max(1, precision * bad):
        answer = fits(now)
        if answer is None:
            break
        good, bad = (now, bad) if answer else (good, now)
        if bad is None and now >= most:
            break
        now = min(2 * now, most) if bad is None else (good + bad) // 2
        if now == good:
            break
    return good, bad


def memory(engine, job: dict, rows: Rows) -> None:
    """What each number of users takes at its peak, and the most users that fit."""
    tokens_in, tokens_out, vocabulary = job["input_tokens"], job["output_tokens"], job["vocabulary"]
    for users in job["users"]:
        if not rows.time_for(20):
            return
        given = prompts(users, tokens_in, vocabulary, f"peak {users}")
        rows.add("peak", users=users, input_tokens=tokens_in, output_tokens=tokens_out, **engine.peak(given, tokens_out))

    def fits(users: int) -> bool | None:
        if not rows.time_for(20):
            return None
        found = engine.peak(prompts(users, tokens_in, vocabulary, f"fits {users}"), job["search_tokens"])
        rows.add("probe", users=users, input_tokens=tokens_in, output_tokens=job["search_tokens"], **found)
        return found["fits"]

    good, bad = largest(fits, max(job["users"]), job["most_users"])
    rows.add("most users", fits=good, fails=bad, input_tokens=tokens_in, output_tokens=job["search_tokens"])


def _holds(engine) -> dict:
    """What the engine says of its memory; a version that does not say it costs no other figure."""
    try:
        return engine.holds()
    except Exception as error:  # noqa: BLE001
        return {"reason": f"{type(error).__name__}: {error}"[:200]}


TASKS = {"speed": speed, "prefix": prefixes, "memory": memory}


def main(path: str) -> int:
    """The command: load the engine, do the job's tasks; 0, or 1 with the reason as a row."""
    job = json.loads(Path(path).read_text())
    rows = Rows(job["rows"], job["left_s"])
    try:
        from helpers.gpu import offline_engines

        started = time.perf_counter()
        engine = offline_engines.ENGINES[job["engine"]](job)
        rows.add("loaded", seconds=time.perf_counter() - started)
        rows.add("holds", **_holds(engine))
        for task in job["tasks"]:
            TASKS[task](engine, job, rows)
        rows.add("done")
        engine.close()
    except Exception as error:  # noqa: BLE001 - whatever an engine raises is one line of the record
        traceback.print_exc()
        said = " ".join(str(error).split()) or "no message"
        rows.add("failed", reason=f"{type(error).__name__}: {said}"[:300])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
