"""The figures behind "which one?": records laid out like the source document's tables, and what a token costs.

A record is one of ``measurements/`` with ``engines``: levels by engine, as ``nox -s record`` makes
it. Its first line, :func:`helpers.records.describe`, belongs above every table made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from helpers import formatting, frameworks, records
from helpers.collection import document
from helpers.studies import throughput as cpu_study
from helpers.weights import shapes, sizes

if TYPE_CHECKING:
    import pandas as pd

ROWS = document.ENGINES | {"llama.cpp (CPU)": "llama-cpp"}
METAL = "llama.cpp (Metal)"  # the document has no other GPU for it; ours is NVIDIA's
ROWS_ON_GPU = document.ENGINES | {METAL: "llama-cpp"}
METAL_AND_CUDA = "llama.cpp (document: Metal; measured: CUDA)"
WEIGHTS = {"HuggingFace FP16": "float16", "vLLM FP16": "float16", "llama.cpp Q4": "q4_0", "SGLang FP16": "float16"}
NONE = "no measurement"  # notes says why
GROUPED = "Llama-3.1-8B"  # a model of today with about as many parameters, and GQA


def throughput(record: Mapping) -> pd.DataFrame:
    """Output tokens/s of all users together: a row for each engine, a column for each number of users."""
    return _by_users(record, lambda level: _told(level, "output_tokens_per_s", ",.0f"))


def first_token(record: Mapping) -> pd.DataFrame:
    """TTFT in ms, median over requests, of the fewest and of the most users in ``record``."""
    found = _by_users(record, lambda level: _told(level, "ttft_s", ",.0f", 1000))
    return found[[found.columns[0], found.columns[-1]]].add_suffix(", ms")


def rates(record: Mapping) -> dict[str, dict[int, Mapping | None]]:
    """Output tokens/s (``median``, ``low``, ``high``) by engine and number of users; ``None`` is no measurement."""
    return {_title(name, record): by_users for name, by_users in by_engine(record).items()}


def cost(of: Mapping[str, Mapping[int, Mapping | None]], price_per_hour: float) -> pd.DataFrame:
    """What a million output tokens cost, in the currency of ``price_per_hour``, if the machine is busy all the time.

    ``of`` are :func:`rates`, or those of a GPU record (:func:`helpers.gpu.recorded.read.every_rate`); ``price_per_hour`` is what
    an hour of that whole machine costs you. Raises :class:`ValueError` unless it is positive.
    """
    import pandas as pd

    if not price_per_hour > 0:
        raise ValueError(f"price_per_hour={price_per_hour} is no price: give what an hour of the machine costs, above 0")
    rows = {
        name: {
            formatting.users_told(users): formatting.told(per_million(rate, price_per_hour), ",.2f") if rate else NONE
            for users, rate in by.items()
        }
        for name, by in of.items()
    }
    return pd.DataFrame(rows).T.fillna("not measured")


def per_million(rate: Mapping, price_per_hour: float) -> dict[str, float]:
    """A rate in tokens/s (``median``, ``low``, ``high``) as the price of a million tokens: the fastest repeat is the cheapest."""
    of = {"median": "median", "low": "high", "high": "low"}
    prices = {key: price_per_hour / 3600 / rate[source] * 1e6 for key, source in of.items()}
    return prices | ({"repeats": rate["repeats"]} if "repeats" in rate else {})


def _by_users(record: Mapping, cell: Callable[[Mapping], str]) -> pd.DataFrame:
    import pandas as pd

    rows = {
        _title(name, record): {formatting.users_told(level["users"]): cell(level) for level in levels}
        for name, levels in record["engines"].items()
    }
    return pd.DataFrame(rows).T.fillna("not measured")


def _title(name: str, record: Mapping) -> str:
    """An engine with its weights, ``vLLM, bf16``."""
    return f"{frameworks.label(name, records.on_gpu(record))}, {frameworks.get(name).dtype}"


def _told(level: Mapping, figure: str, form: str, scale: float = 1) -> str:
    return formatting.told(level[figure], form, scale, none=NONE)


def notes(record: Mapping) -> list[str]:
    """What to know of ``record``: how its engines ran, and for each level why it is no measurement or what was allowed in it."""
    return cpu_study.notes(record) + [
        f"{frameworks.label(name, records.on_gpu(record))}, {formatting.users_told(level['users'])}: {level['label']}"
        for name, levels in record["engines"].items()
        for level in levels
        if level["label"]
    ]


def gains(of: Mapping[str, Mapping[int, Mapping | None]], rows: Mapping[str, str] = ROWS) -> pd.DataFrame:
    """How many times the tokens of one user: what can be compared although the document names no machine.

    Each row of the document's throughput table beside ``of``: rates by engine name and number of users, of
    :func:`by_engine` or of a GPU record (:func:`helpers.gpu.recorded.read.served`). ``rows`` says which of the document's
    rows is which engine; llama.cpp is compared by its fastest row (:func:`helpers.studies.throughput.best`).
    """
    import pandas as pd

    table = {}
    for row, (one, ten, hundred) in document.texts("throughput").items():
        engine = rows.get(row)
        measured = of.get(cpu_study.best(of, engine) if engine else None, {})
        table[row] = {
            "10 users, document": _times(ten, one),
            "10 users, measured": _times(measured.get(10), measured.get(1)),
            "100 users, document": _times(hundred, one),
            "100 users, measured": _times(measured.get(100), measured.get(1)),
        }
    return pd.DataFrame(table).T


def gains_on_gpu(of: Mapping[str, Mapping[int, Mapping | None]]) -> pd.DataFrame:
    """:func:`gains` of a GPU record; the row whose two sides ran on different makes of GPU says so."""
    return gains(of, ROWS_ON_GPU).rename(index={METAL: METAL_AND_CUDA})


def gain_lines(of: Mapping[str, Mapping[int, Mapping | None]]) -> tuple[dict, dict]:
    """The document's gains and those of ``of`` (of a GPU record), each by framework and number of users, to be drawn."""
    said, measured = {}, {}
    for row, texts in document.texts("throughput").items():
        if engine := ROWS_ON_GPU.get(row):
            rates = [float(text) for text in texts if text.replace(".", "").isdigit()]
            said[engine] = {users: rate / rates[0] for users, rate in zip((1, 10, 100), rates)}
            found = {users: rate["median"] for users, rate in of.get(engine, {}).items() if rate}
            if found:
                measured[engine] = {users: rate / found[min(found)] for users, rate in found.items()}
    return said, measured


def prices(of: Mapping[str, Mapping[int, Mapping | None]], price_per_hour: float) -> dict[str, dict[int, float]]:
    """:func:`cost` as numbers, the medians alone, to be drawn."""
    median = lambda rate: per_million(rate, price_per_hour)["median"]  # noqa: E731
    return {name: {users: median(rate) for users, rate in by.items() if rate} for name, by in of.items()}


def apart(of: Mapping[str, tuple[float, float]], price_per_hour: float) -> pd.DataFrame:
    """A million input and a million output tokens in the currency of ``price_per_hour``, by framework, and their ratio.

    ``of`` has the machine's seconds for a token of each (:func:`helpers.gpu.recorded.read.token_seconds`).
    """
    import pandas as pd

    of_million = price_per_hour / 3600 * 1e6
    rows = {
        frameworks.TITLES[name]: {
            "a million input tokens": f"{first * of_million:.3f}",
            "a million output tokens": f"{second * of_million:.3f}",
            "output / input": f"{second / first:.1f}",
        }
        for name, (first, second) in of.items()
    }
    return pd.DataFrame(rows).T


def by_engine(record: Mapping) -> dict[str, dict[int, Mapping | None]]:
    """:func:`rates` by the engines' own names."""
    return cpu_study.rates(record["engines"])


def _times(many: object, one: object) -> str:
    """``many`` over ``one``; a text that is no number ("OOM") as it is, and ``-`` where a figure is missing."""
    many, one = (value["median"] if isinstance(value, Mapping) else value for value in (many, one))
    if many is None or one is None:
        return "-"
    try:
        return f"{float(many) / float(one):.1f}"
    except ValueError:
        return str(many)


def memory_of_7b(tokens_per_user: int, users: int = 100) -> pd.DataFrame:
    """The document's memory table, computed: weights in GB, and the KV cache in GB of ``users`` of ``tokens_per_user`` each.

    Bytes do not depend on the engine, only on the types and on the shape: Llama-2-7B (MHA) is the
    document's, and a model of today has GQA. GB is 10^9 bytes, as in the document.
    """
    import pandas as pd

    old, new = shapes.of("Llama-2-7B"), shapes.of(GROUPED)
    of = {f"KV cache, GB: {sheet.name} ({sheet.attention})": sizes.kv_bytes_per_token(sheet.shape) for sheet in (old, new)}
    cache = {title: round(users * tokens_per_user * per_token / 1e9, 1) for title, per_token in of.items()}
    rows = {
        row: {
            "model, document": model,
            "model, GB": round(sizes.bytes_of(old.parameters, WEIGHTS[row]) / 1e9, 1),
            "KV cache, document": kv,
        }
        | cache
        for row, (model, kv) in document.texts("memory").items()
    }
    return pd.DataFrame(rows).T
