"""Warm up, repeat, alternate: measure endpoints under rising loads.

Closed loop: each user sends its next request when its last one has ended, so a slow server is
asked less often than a fast one. Open loop: requests arrive at random at a given rate, however
slow the server is. Requests are greedy and of fixed length; what came back is in the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from helpers.bench import checks, client, live, surroundings, talks, timing, workload
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.live import View
from helpers.bench.prefixes import Expected, Seen
from helpers.bench.talks import Source
from helpers.bench.timing import Level, Sample, TooFewRepeats
from helpers.formatting import users_told

MAX_FAILED = 0.01  # share of failed requests above which a level is no figure
STEADY = 0.10  # a warm-up that is faster than the last one by less than this was the last one
MOST_WARMUPS = 6
OPEN_LOOP_S = 30  # so long does an open loop send, unless told how many


Watched = Callable[[str, int | float], AbstractContextManager]  # (endpoint's name, load) -> what a repeat is sent within


def _unwatched(name: str, load: int | float) -> AbstractContextManager:
    """Nothing beside the client's figures."""
    return nullcontext()


@dataclass(frozen=True)
class Target:
    """An endpoint and how many words make a prompt that it counts as the asked length."""

    endpoint: Endpoint
    words: int


@dataclass(frozen=True)
class Plan:
    """What is sent to every endpoint. Bad numbers raise before a request is sent."""

    users: tuple[int, ...] = (1,)
    input_tokens: int = 128
    output_tokens: int = 128
    requests: int | None = None  # per repeat, whatever the load; None: so many per user
    requests_per_user: int = 4
    repeats: int = timing.MIN_REPEATS
    warmups: int = timing.MIN_WARMUPS  # at the least: they go on until the rate is steady
    settle: bool = True  # False: no more warm-ups than that, for a server that has long been at work
    rates_per_s: tuple[float, ...] = ()  # open loop at these rates, instead of users
    seed: int = 0
    timeout_s: float = 300
    allow_few: bool = False  # measure with fewer repeats than give a spread, and say so in the label
    allow_cached: bool = False  # measure although a prefix cache helped, and say so in the label
    source: Source | None = None  # talks, instead of random prompts of one length; the lengths here are then the probe's

    def __post_init__(self):
        for name in ("input_tokens", "output_tokens", "requests", "requests_per_user", "repeats"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.warmups < 0 or not self.timeout_s > 0:
            raise ValueError(f"warmups={self.warmups}, timeout_s={self.timeout_s:g}: give no negative number, and some time")
        if not self.rates_per_s and (not self.users or min(self.users) < 1):
            raise ValueError(f"users={self.users}: give numbers of at least 1, like 1,10,100")
        if self.rates_per_s and not min(self.rates_per_s) > 0:
            raise ValueError(f"rates_per_s={self.rates_per_s}: give rates above 0, like 0.5,2")
        if self.few and not self.allow_few:
            raise TooFewRepeats(
                f"{self.repeats} repeats and {self.warmups} warm-ups give no spread: use at least {timing.MIN_REPEATS} and "
                f"{timing.MIN_WARMUPS}, or allow_few (--allow-few) to get a figure that is labelled"
            )

    @property
    def few(self) -> bool:
        return self.repeats < timing.MIN_REPEATS or self.warmups < timing.MIN_WARMUPS

    @property
    def loads(self) -> tuple[int | float, ...]:
        """The numbers of users, or the rates of an open loop."""
        return self.rates_per_s or self.users

    def count(self, load: int | float) -> int:
        """Requests in one repeat under ``load``; with a ``source``, talks."""
        if self.source and self.source.timed:
            return self.requests or len(self.source.rows)
        if self.rates_per_s:
            return self.requests or max(round(load * OPEN_LOOP_S), 10)
        return self.requests or self.requests_per_user * load

    def prompts(self, load: int | float, turn: int, words: int, vocabulary, copy: int = 0) -> list[workload.Prompt]:
        """What is sent in ``turn`` (negative: a warm-up); a ``copy`` of an endpoint gets prompts of its own.

        No two turns of a run begin with the same token: SGLang's cache finds a single one.
        """
        seed, order = f"{self.seed}, load {load}, turn {turn}, copy {copy}", f"{self.seed}, first tokens"
        skip = copy * self._before(None) + self._before(load) + turn % self._turns * self.count(load)
        return workload.prompts(self.count(load), words, seed=seed, vocabulary=vocabulary, order=order, skip=skip)

    def talks(self, load: int | float, turn: int, overhead: int, copy: int = 0) -> list[talks.Talk]:
        """What the ``source`` says in ``turn``, as :meth:`prompts`; in an open loop, at random times at the rate ``load``."""
        skip = copy * self._before(None) + self._before(load) + turn % self._turns * self.count(load)
        seed = f"{self.seed}, load {load}, turn {turn}, copy {copy}"
        said = self.source.talks(self.count(load), seed=seed, skip=skip, overhead=overhead)
        if self.source.timed and turn < 0:  # a warm-up of hours helps nobody
            return [talk for talk in said if talk.at_s <= OPEN_LOOP_S]
        return self.timed(said, load, turn)

    def timed(self, said: list[talks.Talk], load: int | float, turn: int) -> list[talks.Talk]:
        """The same with the times of an open loop, where there is one and they have none of their own."""
        if self.source.timed or not self.rates_per_s:
            return said
        return [replace(talk, at_s=at_s) for talk, at_s in zip(said, workload.arrivals(len(said), load, self.seed + turn))]

    def writer(self, vocabulary: Sequence[str] | None) -> talks.Writer:
        """What turns talks into text."""
        return talks.Writer(vocabulary, f"{self.seed}, first tokens")

    def title(self, name: str, load: int | float, turn: int) -> str:
        """What is sent in ``turn``, for those who watch: ``load 2 of 3: 10 users, repeat 1 of 3``."""
        which = f"load {self.loads.index(load) + 1} of {len(self.loads)}: " if len(self.loads) > 1 else ""
        under = f"{load:g} requests/s" if self.rates_per_s else users_told(load)
        return f"{f'{name}, ' if name else ''}{which}{under}, {_turn(turn, self.repeats)}"

    def facts(self) -> dict:
        """The plan as the provenance keeps it."""
        return {**vars(self), "source": self.source and self.source.facts()}

    @property
    def _turns(self) -> int:
        """Repeats and the warm-ups that there can be: a turn of -1 is the last of them."""
        return self.repeats + max(self.warmups, MOST_WARMUPS)

    def _before(self, load: int | float | None) -> int:
        """The most requests that an endpoint gets before ``load``; ``None``: in the whole run."""
        earlier = self.loads if load is None else takewhile(lambda one: one != load, self.loads)
        return self._turns * sum(map(self.count, earlier))


def _turn(turn: int, repeats: int) -> str:
    return f"warm-up {-turn}" if turn < 0 else f"repeat {turn + 1} of {repeats}"


def levels(
    endpoints: Mapping[str, Endpoint],
    plan: Plan,
    *,
    vocabulary: Sequence[str] | None = None,
    progress: bool | View = True,
    awake: Callable[[str], AbstractContextManager] = nullcontext,
    hits: Callable[[str], checks.Hits] | None = None,
    watched: Watched = _unwatched,
) -> Iterator[dict[str, Level]]:
    """Measure every endpoint under every load of ``plan``; yields ``{name: Level}`` as each is done.

    Under each load: warm-ups for all until each is steady, then the repeats in blocks, the order
    of the endpoints turned round from repeat to repeat, so that a machine that slows down slows
    all of them. All endpoints get the same prompts, and none gets a prompt twice; an endpoint
    that stands there twice (an A/A run) gets other ones each time. Whatever is sent to an
    endpoint is sent inside ``awake(its name)``. ``hits(its name)`` is its engine's own count of
    prompt tokens taken from a prefix cache: if it grows by more than ``checks.MOST_CACHED`` of
    them, the level is refused. Each repeat, and no warm-up, is sent inside ``watched(its name, the load)``. ``progress``
    is shown as :func:`helpers.bench.live.view` says.
    """
    targets = {}
    for name, endpoint in endpoints.items():
        with awake(name):
            targets[name] = probe(endpoint, plan, vocabulary)
    copies = {name: list(endpoints.values())[:i].count(endpoints[name]) for i, name in enumerate(endpoints)}
    caches = _caches(endpoints)
    writer, view = plan.writer(vocabulary) if plan.source else None, live.view(progress)
    for load in plan.loads:
        expected = dict.fromkeys(targets, Expected())

        def block(name: str, turn: int, load=load, expected=expected) -> tuple[Sample, ...]:
            show = partial(view.run, plan.title(name, load, turn))
            with awake(name):
                if plan.source is None:
                    prompts = plan.prompts(load, turn, targets[name].words, vocabulary, copies[name])
                    return _block(targets[name], plan, load, prompts, turn, show)
                said = plan.talks(load, turn, plan.input_tokens - targets[name].words, copies[name])
                found = _speak(targets[name], plan, load, said, writer, show)
                hoped = caches[name].take(found)
                expected[name] += hoped if turn >= 0 else Expected()
                return found

        def count() -> dict[str, checks.Hits | None]:
            found = {}
            for name in targets:
                with awake(name):
                    found[name] = hits(name) if hits else None
            return found

        warmed = _warm_up(list(targets), plan, block)
        blocks: dict[str, list] = {name: [] for name in targets}
        before = count()
        moments: dict[str, list] = {name: [] for name in targets}
        for turn in range(plan.repeats):
            for name in list(targets)[:: 1 if turn % 2 == 0 else -1]:
                with watched(name, load):
                    begun = surroundings.now()
                    found = block(name, turn)
                    moments[name].append((begun, surroundings.now()))
                blocks[name].append(found)
        after = count()
        grown = {name: checks.hits_between(before[name], after[name]) if hits else None for name in targets}
        hoped = expected if plan.source else dict.fromkeys(targets)
        found = {name: _level(load, tuple(blocks[name]), plan, warmed[name], grown[name], hoped[name]) for name in targets}
        yield {name: replace(level, machine=surroundings.between(moments[name])) for name, level in found.items()}


def _caches(endpoints: Mapping[str, Endpoint]) -> dict[str, Seen]:
    """What may be cached for each; an endpoint that stands there twice has one cache."""
    caches: dict[str, Seen] = {}
    for name, endpoint in endpoints.items():
        same = next((other for other in caches if endpoints[other] == endpoint), None)
        caches[name] = caches[same] if same is not None else Seen()
    return caches


def _warm_up(names: list[str], plan: Plan, block: Callable) -> dict[str, list[float | None]]:
    """Send warm-ups to each until its rate grows no more, or there were ``MOST_WARMUPS``; returns their rates."""
    rates: dict[str, list] = {name: [] for name in names}
    most = max(plan.warmups, MOST_WARMUPS) if plan.warmups and plan.settle else plan.warmups
    for turn in range(1, most + 1):
        for name in names[:: 1 if turn % 2 == 0 else -1]:
            if turn <= plan.warmups or not steady(rates[name]):
                rates[name].append(timing.tokens_rate(block(name, -turn)))
    return rates


def steady(rates: Sequence[float | None]) -> bool:
    """Whether the last warm-up was hardly faster than the one before; one that failed is no reason to go on."""
    if rates and rates[-1] is None:
        return True
    return len(rates) > 1 and (rates[-2] is None or rates[-1] <= (1 + STEADY) * rates[-2])


def compare(endpoints: Mapping[str, Endpoint], plan: Plan, **options) -> dict[str, list[Level]]:
    """:func:`levels`, collected: ``{name: [Level, ...]}`` in the order of ``plan.loads``; see :mod:`helpers.bench.stats`."""
    found: dict[str, list[Level]] = {name: [] for name in endpoints}
    for measured in levels(endpoints, plan, **options):
        for name, level in measured.items():
            found[name].append(level)
    return found


def measure(endpoint: Endpoint, plan: Plan, **options) -> list[Level]:
    """One endpoint alone: a :class:`Level` per load."""
    return compare({"": endpoint}, plan, **options)[""]


def conversation(endpoint: Endpoint, talks: Sequence[Sequence[workload.Prompt]], *, output_tokens: int) -> list[list[Sample]]:
    """One request after the other, turn by turn, the prefix cache allowed to help; a list of samples per talk."""

    async def speak() -> list[list[Sample]]:
        return [[await client.request(endpoint.cached(), turn, output_tokens) for turn in talk] for talk in talks]

    return client.run(speak())


def workload_sha256(plan: Plan, vocabulary: Sequence[str] | None = None) -> str:
    """The hash of every measured prompt of ``plan``, and of when it is sent if the plan's source says so."""
    turns = [(load, turn) for load in plan.loads for turn in range(plan.repeats)]
    if plan.source:
        return talks.sha256((plan.talks(load, turn, 0) for load, turn in turns), plan.writer(vocabulary))
    sent = [p for load, turn in turns for p in plan.prompts(load, turn, plan.input_tokens, vocabulary)]
    return workload.sha256(sent, plan.output_tokens)


Show = Callable[[int, Callable], Sequence[Sample]]  # (requests, what sends them) -> what came back, shown meanwhile


def _block(target: Target, plan: Plan, load: int | float, prompts, turn: int, show: Show) -> tuple[Sample, ...]:
    how = {"output_tokens": plan.output_tokens, "timeout_s": plan.timeout_s}
    if plan.rates_per_s:
        sending = partial(client.open_loop, target.endpoint, prompts, rate_per_s=load, seed=plan.seed + turn, **how)
    else:
        sending = partial(client.closed_loop, target.endpoint, prompts, users=load, **how)
    return tuple(show(len(prompts), sending))


def _speak(target: Target, plan: Plan, load, said: list[talks.Talk], writer: talks.Writer, show: Show) -> tuple[Sample, ...]:
    users = None if plan.rates_per_s else load
    sending = partial(client.talks, target.endpoint, said, writer, users=users, timeout_s=plan.timeout_s)
    return tuple(show(sum(len(talk.turns) for talk in said), sending))


def _level(
    load, blocks: tuple[tuple[Sample, ...], ...], plan: Plan, warmed: list[float | None], hits: int | None,
    expected: Expected | None = None,
) -> Level:  # fmt: skip
    samples = [s for block in blocks for s in block]
    refused, notes = _verdicts(samples, plan, hits, expected)
    if plan.few:
        notes.insert(0, f"not a measurement: {plan.repeats} repeats after {plan.warmups} warm-ups")
    elif plan.settle and not steady(warmed):
        notes.append(f"not steady: still faster after {len(warmed)} warm-ups")
    users, rate = (None, load) if plan.rates_per_s else (load, None)
    unproven = tuple(checks.unproven(samples, cache_hits=hits))
    cache = expected and _cache(samples, hits, expected)
    return Level(users, blocks, "; ".join(notes) or None, rate, refused, len(warmed), unproven, prefix_cache=cache)


def _cache(samples: list[Sample], hits: int | None, expected: Expected) -> dict[str, int | None]:
    """Prompt tokens of a level, those that a prefix cache may have held, and those that it is said to have held."""
    done = [s for s in samples if s.error is None]
    reported = checks.hits_between(checks.Hits(None, ""), checks.Hits(None, ""), done)
    reported = max((found for found in (reported, hits) if found is not None), default=None)
    prompt = sum(s.prompt_tokens or s.asked.input_tokens or 0 for s in done)
    return {"prompt_tokens": prompt, "expected_low": expected.low, "expected_high": expected.high, "reported": reported}


def _verdicts(
    samples: list[Sample], plan: Plan, hits: int | None, expected: Expected | None = None
) -> tuple[str | None, list[str]]:
    """Why these are no figure, if so, and what else to know of them."""
    failures = Counter(s.error for s in samples if s.error is not None)
    if failures.total() > MAX_FAILED * len(samples):
        (commonest, times), *_ = failures.most_common(1)
        return f"not a measurement: {failures.total()} of {len(samples)} requests failed, {times} with {commonest!r}", []
    asked = {"input_tokens": plan.input_tokens, "output_tokens": plan.output_tokens}
    most = expected.most if expected else 0
    found = checks.problems(samples, **asked, cached=plan.allow_cached, cache_hits=hits, expected_hits=most)
    helped = [line for line in found if line.startswith("prefix cache")]
    if helped:
        return f"not a measurement: {helped[0]}; send new prompts, or allow it with allow_cached (--allow-cached)", []
    cached = max(sum(s.cached_tokens or 0 for s in samples), hits or 0) if expected is None else 0  # else it is told in full
    held = f"a prefix cache held {cached} of {plan.input_tokens * len(samples)} prompt tokens"
    return None, found + ([f"{held}, {'as allowed' if plan.allow_cached else 'by chance'}"] if cached else [])


class Sender:
    """Sends blocks of any load to one endpoint, each of prompts that nobody sent before: what a search asks for.

    ``unit`` is ``"users"`` or ``"requests/s"``; a load's first block follows a warm-up. ``watched`` as in :func:`levels`.
    """

    def __init__(
        self,
        target: Target,
        plan: Plan,
        unit: str,
        vocabulary: Sequence[str] | None,
        *,
        progress: bool | View = True,
        watched: Watched = _unwatched,
    ):
        self.target, self.plan, self.unit, self.vocabulary = target, plan, unit, vocabulary
        self.writer, self.view, self.watched = plan.writer(vocabulary), live.view(progress), watched
        self.cache, self.expected, self.moments = Seen(), {}, {}
        self.sent = 0

    def __call__(self, load: int | float, requests: int) -> tuple[Sample, ...]:
        """At least ``requests`` under ``load``: so many that each user has some, or an open loop its time."""
        if load not in self.expected:
            self._send(load, self._plan(load).count(load))
            self.expected[load] = Expected()
        with self.watched("", load):
            begun = surroundings.now()
            found = self._send(load, max(requests, self._plan(load).count(load)))
            self.moments.setdefault(load, []).append((begun, surroundings.now()))
        self.expected[load] += self.hoped
        return found

    def _plan(self, load: int | float, requests: int | None = None) -> Plan:
        loads = {"users": (load,)} if self.unit == "users" else {"rates_per_s": (load,)}
        return replace(self.plan, requests=requests or self.plan.requests, **{"users": (1,), "rates_per_s": (), **loads})

    def _send(self, load: int | float, requests: int) -> tuple[Sample, ...]:
        plan, turn, show = self._plan(load, requests), self.sent, partial(self.view.run, f"{load:g} {self.unit}")
        self.sent += requests
        if plan.source:
            overhead = plan.input_tokens - self.target.words
            said = plan.source.talks(requests, seed=f"{plan.seed}, {turn}", skip=turn, overhead=overhead)
            found = _speak(self.target, plan, load, plan.timed(said, load, turn), self.writer, show)
        else:
            how = {"seed": f"{plan.seed}, {turn}", "order": f"{plan.seed}, first tokens", "skip": turn}
            made = workload.prompts(requests, self.target.words, vocabulary=self.vocabulary, **how)
            found = _block(self.target, plan, load, made, turn, show)
        self.hoped = self.cache.take(found)
        return found

    def levels(self, blocks: Mapping[int | float, Sequence[tuple[Sample, ...]]]) -> list[Level]:
        """What was sent, a :class:`Level` for each load, from the lowest on."""
        return [self._level(load, tuple(blocks[load])) for load in sorted(blocks)]

    def _level(self, load: int | float, blocks: tuple[tuple[Sample, ...], ...]) -> Level:
        expected = self.expected.get(load) if self.plan.source else None
        level = _level(load, blocks, self._plan(load), [None], None, expected)
        few = f"a look of {len(blocks)} repeats" if len(blocks) < timing.MIN_REPEATS else None
        machine = surroundings.between(self.moments.get(load, ()))
        return replace(level, label="; ".join(filter(None, (few, level.label))) or None, machine=machine)


def probe(endpoint: Endpoint, plan: Plan, vocabulary: Sequence[str] | None = None) -> Target:
    """Ask once or a few times, unmeasured.

    A special token or a chat template adds to the prompt; words are left out until the
    server's own count is ``plan.input_tokens``. Raises :class:`EndpointError` in one line.
    """
    asked = plan.input_tokens + plan.output_tokens
    if endpoint.context is not None and asked > endpoint.context:
        raise EndpointError(
            f"{plan.input_tokens} tokens in and {plan.output_tokens} out do not fit the context of {endpoint.context}: "
            "ask for fewer, or start the server with more"
        )
    target = Target(endpoint, plan.input_tokens)
    for attempt in range(4):
        prompt = workload.prompts(1, target.words, seed=f"probe {attempt}", vocabulary=vocabulary)[0]
        sample = client.run(client.request(endpoint, prompt, plan.output_tokens, timeout_s=plan.timeout_s))
        if sample.error:
            raise EndpointError(f"{endpoint.base_url} gives no answer to measure: {sample.error}")
        if sample.prompt_tokens in (None, plan.input_tokens):
            return target
        target = replace(target, words=target.words - (sample.prompt_tokens - plan.input_tokens))
        if target.words < 1:
            break
    raise EndpointError(
        f"{endpoint.base_url} counts {sample.prompt_tokens} prompt tokens where {plan.input_tokens} were asked for: ask for more"
    )
