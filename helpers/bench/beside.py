"""What stands beside the client's figures while it measures one endpoint: the server's own metrics, and the energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from helpers.bench import energy, server_metrics
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level

NOT_ASKED = "not read: the run was asked to leave them out"


class Beside:
    """Watches each repeat, and notes on its level what was seen; what cannot be had is a word in :meth:`facts`."""

    def __init__(self, endpoint: Endpoint, *, metrics: bool = True):
        self.energy = energy.Meter(endpoint.base_url)
        self.metrics, self.metrics_told = None, NOT_ASKED
        if metrics:
            try:
                self.metrics = server_metrics.Watch(endpoint)
                self.metrics_told = f"of {self.metrics.kernel}, from /metrics"
            except server_metrics.Unreadable as reason:
                self.metrics_told = f"none: {reason}"

    @contextmanager
    def repeat(self, name: str, load: int | float) -> Iterator[None]:
        """A repeat under ``load`` is sent within this (``watched`` of :func:`helpers.bench.measure.levels`)."""
        with self.metrics.repeat(load) if self.metrics else nullcontext(), self.energy.repeat(load):
            yield

    def note(self, level: Level) -> Level:
        """``level`` with what was seen during its repeats."""
        return replace(level, server_metrics=self.metrics.of(level) if self.metrics else None, energy=self.energy.of(level))

    def facts(self) -> dict[str, str]:
        """Where it comes from, or why it is not there, for the provenance."""
        return {"server_metrics": self.metrics_told, "energy": self.energy.told}
