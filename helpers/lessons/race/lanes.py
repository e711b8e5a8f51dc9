"""A lane of the race: one engine's answer, piece by piece with its stamps, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from helpers.bench import timing
from helpers.bench.timing import Sample

WAYS = {"alone": "One prompt, each engine alone", "together": "One prompt, all engines at once"}
DIGITS = 4  # of a second: a tenth of a millisecond


@dataclass(frozen=True)
class Lane:
    """One engine's answer; times are seconds since its own request was sent.

    ``error`` says why there is no answer, or no whole one. ``state`` is ``"waits"`` or ``"runs"`` while the race goes on.
    Raises :class:`ValueError` if not every piece has its stamp.
    """

    name: str  # of the engine
    pieces: tuple[str, ...] = ()  # what each event carried: a token, or a few
    at_s: tuple[float, ...] = ()  # when it came
    ttft_s: float | None = None
    output_tokens_per_s: float | None = None  # from the request to the last token
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None  # of the prompt, where the server says it
    error: str | None = None
    state: str | None = None

    def __post_init__(self):
        if len(self.pieces) != len(self.at_s):
            raise ValueError(f"{self.name}: {len(self.pieces)} pieces and {len(self.at_s)} stamps: each piece needs its own")

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)

    def to_dict(self) -> dict:
        """The lane as a record keeps it."""
        kept = asdict(self)
        del kept["state"]
        return kept


def of_sample(name: str, sample: Sample, state: str | None = None) -> Lane:
    """The lane of what the client saw; with a ``state`` the answer is still under way, and that it has no end is no error."""
    rate = timing.tokens_rate((sample,))
    return Lane(
        name, tuple(sample.pieces), tuple(round((stamp - sample.sent_ns) / 1e9, DIGITS) for stamp in sample.event_ns),
        ttft_s=sample.ttft_s and round(sample.ttft_s, DIGITS), output_tokens_per_s=rate and round(rate, 2),
        output_tokens=sample.output_tokens, prompt_tokens=sample.prompt_tokens, cached_tokens=sample.cached_tokens,
        error=None if state else sample.error, state=state,
    )  # fmt: skip


def of_record(found: Mapping, way: str) -> list[Lane]:
    """The lanes that a record has of ``way``."""
    return [Lane(**{**kept, "pieces": tuple(kept["pieces"]), "at_s": tuple(kept["at_s"])}) for kept in found["ways"][way]]
