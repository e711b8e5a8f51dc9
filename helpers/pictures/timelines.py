"""Requests over time: when each was sent, and when its tokens came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import frameworks, plots


def answer(sample, title: str = "", note: str = ""):
    """Draw one answer on a line of time: a dot for each event, with TTFT, the longest ITL and TPOT marked.

    ``sample`` is a ``helpers.bench.timing.Sample`` of two events and two tokens or more. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    ms = [(ns - sample.sent_ns) / 1e6 for ns in sample.event_ns]
    gap, end = max((after - before, after) for before, after in zip(ms, ms[1:]))
    span_ms, steps = ms[-1] - ms[0], sample.output_tokens - 1
    figure = Figure(figsize=(7.6, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, ms[0]], [0, 0], color="0.7", linewidth=5, solid_capstyle="butt")
    axes.plot([end - gap, end], [0, 0], color=plots.COLOURS[3], linewidth=3, solid_capstyle="butt")
    axes.plot(ms, [0] * len(ms), ".", color=plots.COLOURS[0], markersize=8)
    _distance(axes, 0, ms[0], f"TTFT {ms[0]:.0f} ms\nwait and prefill: the whole prompt at once", "left")
    tpot = f"TPOT = {span_ms:.0f} ms / {steps} = {span_ms / steps:.1f} ms"
    _distance(axes, ms[0], ms[-1], f"{tpot}\ndecode: one token after the other", "right")
    axes.annotate(
        f"longest ITL {gap:.1f} ms", (end - gap / 2, -0.15), xytext=(end - gap / 2, -1.1), fontsize=8, ha="center", va="top",
        color=plots.COLOURS[3], arrowprops={"arrowstyle": "->", "color": plots.COLOURS[3]},
    )  # fmt: skip
    axes.set(xlabel="ms since the request was sent", yticks=[], ylim=(-2, 2.6))
    axes.spines[["top", "right", "left"]].set_visible(False)
    plots.titled(figure, title, [note] if note else ())
    return figure


def _distance(axes, begin: float, end: float, text: str, side: str) -> None:
    """An arrow with two heads above the line of time, with ``text`` above it that begins (or ends) where the arrow does."""
    axes.annotate("", (end, 0.7), xytext=(begin, 0.7), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})
    axes.annotate(text, (begin if side == "left" else end, 0.9), fontsize=8, ha=side, va="bottom")


def timeline(groups: Mapping[str, Sequence], title: str = "", note: str = ""):
    """Draw requests over time, a panel for each name: a row per request, grey until its first token, then a dot per event.

    ``groups`` maps a name to samples (``helpers.bench.timing.Sample``); one without events is left out. Every panel begins
    when its first request was sent, and all have the same scale. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows = [max(len(samples), 2) for samples in groups.values()]
    figure = Figure(figsize=(7.6, 1.1 + 0.17 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (name, samples) in zip(panels, groups.items()):
        start_ns = min(s.sent_ns for s in samples)
        for row, sample in enumerate(s for s in samples if s.event_ns):
            sent, *events = ((ns - start_ns) / 1e6 for ns in (sample.sent_ns, *sample.event_ns))
            axes.plot([sent, events[0]], [row, row], color="0.7", linewidth=2)
            axes.plot(events, [row] * len(events), ".-", color=plots.COLOURS[0], linewidth=1, markersize=4)
        axes.set(yticks=[], ylim=(-1, len(samples)))
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel("ms since the first request was sent; grey: no token yet, a dot: a piece of the answer")
    plots.titled(figure, title, [note] if note else ())
    return figure


def joined(
    requests: Mapping[str, Sequence[int]],
    running: Sequence[tuple[int, float]],
    title: str = "",
    notes: Sequence[str] = (),
):
    """Draw requests over time, grey until the first token and then a dot for each; below, how many the server says are running.

    ``requests`` maps a name to stamps in ns: when it was sent, then its tokens. ``running`` are stamps of the same clock, each
    with a number. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.0 + 0.3 * len(requests)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(len(requests), 2))
    start_ns = min(stamps[0] for stamps in requests.values())
    for row, stamps in enumerate(requests.values()):
        sent, *tokens = ((ns - start_ns) / 1e9 for ns in stamps)
        above.plot([sent, *tokens[:1]], [row] * len([sent, *tokens[:1]]), color="0.6")
        above.plot(tokens, [row] * len(tokens), ".", color=plots.COLOURS[0], markersize=4)
    above.set_yticks(range(len(requests)), list(requests), fontsize=8)
    above.invert_yaxis()
    below.step([(ns - start_ns) / 1e9 for ns, _ in running], [number for _, number in running], where="post", color="black")
    below.set(xlabel="seconds since the first request was sent", ylabel="running", ylim=(0, None))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return plots.titled(figure, title, notes)


def slots(found: Mapping[str, Sequence[Sequence[float]]]):
    """Draw requests over time, a panel for each server: grey until the first token, then a dot for each event.

    ``found`` maps what a server is called to its requests, each a list of times in ms: when it was sent, then its events.
    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 1.0 + 0.22 * sum(map(len, found.values()))), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, requests) in zip(panels, found.items()):
        for row, (sent, *events) in enumerate(sorted(requests, key=lambda one: one[1], reverse=True)):
            axes.plot([sent, events[0]], [row, row], color="0.6")
            axes.plot(events, [row] * len(events), ".-", color=frameworks.get("llama-cpp").colour)
        axes.set_title(name, fontsize=8, loc="left")
        axes.set(yticks=[], ylabel="requests", ylim=(-1, len(requests)))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("ms since the first request was sent")
    done = ", ".join(f"{max(times[-1] for times in of):,.0f} ms with {name}" for name, of in found.items())
    return plots.titled(figure, f"{max(map(len, found.values()))} requests at once are done after {done}")
