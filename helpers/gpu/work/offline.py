"""Prompts through an engine's own API, timed; run in the engine's interpreter: ``python -m helpers.gpu.work.offline JOB``.

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

LONGER_REPEATS, SLOW_STEP_S = 2, 0.03  # what a step takes at most, to know whether there is time for another one
FIRST_WORD = 259  # below are special tokens and bytes (helpers.gpu.random_model)
SUFFIX_TOKENS = 24  # behind a common prefix, each user's own
RESERVE = 1.3  # times what the last turn took must be left for another one
STEADY, MOST_WARMUPS = 0.03, 8  # a warm-up that is faster than the last by less was the last one


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


class Asking:
    """Asks an engine for answers of one length and takes the time, the energy and the bytes over NVLink of each batch."""

    def __init__(self, engine, job: dict, counters=None):
        self.engine, self.vocabulary, self.counters = engine, job["vocabulary"], counters
        self.tokens_in, self.tokens_out = job["input_tokens"], job["output_tokens"]

    def __call__(self, users: int, seed: object, tokens_out: int | None = None, tokens_in: int | None = None) -> dict:
        """One batch of ``users``: seconds, and what was counted; fewer tokens than asked for are an error."""
        tokens_in, tokens_out = tokens_in or self.tokens_in, tokens_out or self.tokens_out
        given = prompts(users, tokens_in, self.vocabulary, seed)
        before, started = self._counted(), time.perf_counter()
        counts, firsts = self.engine.generate(given, tokens_out)
        seconds, after = time.perf_counter() - started, self._counted()
        if counts != [tokens_out] * users:
            raise RuntimeError(f"{tokens_out} tokens were asked of each of {users}, and came as {sorted(set(counts))}")
        grown = {name: after[name] - before[name] for name in after if None not in (after[name], before[name])}
        return {
            "seconds": seconds, "output_tokens": users * tokens_out, "ttft_s": median(firsts) if firsts else None, **grown
        }  # fmt: skip

    def _counted(self) -> dict:
        return {name: getattr(self.counters, name)() for name in ("joules", "nvlink_bytes")} if self.counters else {}

    def warm(self, users: int, least: int, **tokens) -> float:
        """Ask until it grows no faster, more than ``least`` times: what is new is compiled meanwhile; the last seconds."""
        took = [self(users, f"warm {users} {tokens} {turn}", **tokens)["seconds"] for turn in range(least)]
        while len(took) < least + 1 or (took[-1] < (1 - STEADY) * took[-2] and len(took) < MOST_WARMUPS):
            took.append(self(users, f"warm {users} {tokens} {len(took)}", **tokens)["seconds"])
        return took[-1]


def speed(engine, job: dict, rows: Rows) -> None:
    """Warm up, then repeats of every number of users: a whole answer, and one token alone."""
    ask, took_s = Asking(engine, job, _counters()), {}
    for users in job["users"]:
        took_s[users] = ask.warm(users, job["warmups"])
        ask.warm(users, job["warmups"], tokens_out=1)
    for turn, users in turns(job["users"], job["repeats"]):
        if not rows.time_for(RESERVE * took_s[users]):
            return
        rows.add("speed", users=users, repeat=turn, **ask(users, f"{users} {turn}"))
        rows.add("first token", users=users, repeat=turn, seconds=ask(users, f"one {users} {turn}", tokens_out=1)["seconds"])


def prefill(engine, job: dict, rows: Rows) -> None:
    """One prompt of each length, and one token: the time of its prefill."""
    ask = Asking(engine, job, _counters())
    for tokens in job["prefill_tokens"]:
        took = ask.warm(1, job["warmups"], tokens_in=tokens, tokens_out=1)
        for turn in range(job["repeats"]):
            if not rows.time_for(RESERVE * took):
                return
            rows.add("prefill", users=1, repeat=turn, input_tokens=tokens, **ask(1, f"{tokens} {turn}", 1, tokens))


def longer(engine, job: dict, rows: Rows) -> None:
    """Longer prompts and answers; each size is warmed up with some tokens of its answer."""
    ask = Asking(engine, job, _counters())
    for tokens_in, tokens_out, several in job["longer"]:
        warm = {users: ask(users, f"warm longer {users}", 8, tokens_in)["seconds"] for users in several}
        took_s = {users: seconds + tokens_out * SLOW_STEP_S for users, seconds in warm.items()}
        for turn, users in turns(several, min(job["repeats"], LONGER_REPEATS)):
            if not rows.time_for(RESERVE * took_s[users]):
                return
            made = ask(users, f"longer {users} {turn}", tokens_out, tokens_in)
            took_s[users] = made["seconds"]
            rows.add("longer", users=users, repeat=turn, input_tokens=tokens_in, **made)


def _counters():
    """NVML in this process, if it is there."""
    from helpers.gpu import device

    return device.Nvml()


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


TASKS = {"speed": speed, "prefill": prefill, "longer": longer, "prefix": prefixes, "memory": memory}


def main(path: str) -> int:
    """The command: load the engine, do the job's tasks; 0, or 1 with the reason as a row."""
    job = json.loads(Path(path).read_text())
    rows = Rows(job["rows"], job["left_s"])
    try:
        from helpers.gpu.work import offline_engines

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
