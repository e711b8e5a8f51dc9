"""Samples made by hand, for pictures and figures of them."""

from helpers.bench.timing import Sample

MS = 1_000_000  # ns


def sample(sent_ms: int, *event_ms: int, tokens: int | None = None) -> Sample:
    """A request with its stamps in milliseconds, a token per event unless given."""
    return Sample(sent_ms * MS, tuple(ms * MS for ms in event_ms), output_tokens=tokens or len(event_ms))
