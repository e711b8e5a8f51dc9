"""One GPU with today's engines, replayed: a row for each setting, what is missing is said, pools beside the calculator."""

from __future__ import annotations

import re

import pytest

from helpers import paths, plots, records
from helpers.gpu.cases import LLAMA, OLD
from helpers.gpu.recorded import read, tables, today
from helpers.studies import standings

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200", "NVIDIA H200"], "gpu_driver": "580.1"}
TOKEN_BYTES = 131_072  # of Llama-3.1-8B's KV cache, 16 bits


def _life(engine: str, work: str, option: str, rows: list[dict], *, shape: str = LLAMA, gpus: int = 1, **more) -> dict:
    return {
        "engine": engine, "work": work, "option": option, "shape": shape, "gpus": gpus, "rows": rows, "failed": [],
        "complete": True, "versions": {engine: "1.0"}, "date": "2026-11-30T02:00:00+00:00", "peak_device_bytes": 100 * 2**30,
        **more,
    }  # fmt: skip


def _span(value: float, off: float = 0.01) -> dict:
    return {"median": value, "low": value * (1 - off), "high": value * (1 + off)}


def _speed(users: int, seconds: float, **more) -> list[dict]:
    """Two repeats, and the request of one token beside each."""
    return [
        row for repeat in range(2) for row in (
            {"kind": "speed", "users": users, "repeat": repeat, "seconds": seconds, "output_tokens": 128 * users, **more},
            {"kind": "first token", "users": users, "repeat": repeat, "seconds": 0.01},
        )
    ]  # fmt: skip


def _level(users: int, rate: float, ttft_s: float, tpot_s: float, **more) -> dict:
    return {
        "kind": "level", "users": users, "requests": 3, "repeats": 3, "prompt_tokens": [128], "output_tokens": [128],
        "output_tokens_per_s": _span(rate), "ttft_s": _span(ttft_s), "tpot_s": _span(tpot_s), "joules": 2304.0, **more,
    }  # fmt: skip


def _arrivals(rate: float, **more) -> dict:
    return _level(None, 128 * rate, 0.1, 0.01) | {
        "kind": "arrivals", "rate_per_s": rate, "met": 1.0, "prompt_tokens": [1024], "answers_at_once": 7, "requests": 9,
        "repeats": 1, "goodput_requests_per_s": _span(rate), **more,
    }  # fmt: skip


def _prefix(kind: str, rate: float, cached: int) -> dict:
    level = {"users": 100, "prompt_tokens": [4096], "output_tokens_per_s": _span(rate), "ttft_s": _span(10 / rate)}
    return {"kind": "prefix", "prefix": kind, "cached_prompt_tokens": [cached, None, cached], "level": level}


LLAMA_CPP = ["--ctx-size", "25600"]
TODAY = {
    "vllm, offline, fp8 weights, Llama-3.1-8B": _life("vllm", "offline", "fp8 weights", [{"kind": "holds", "pool_tokens": 1000}, *_speed(1, 0.5, joules=128.0)]),  # noqa: E501
    "llama-cpp, offline, q4_0, Llama-3.1-8B": _life("llama-cpp", "offline", "q4_0", _speed(1, 0.4), arguments=LLAMA_CPP),
    "llama-cpp, server, q4_0, Llama-3.1-8B": _life("llama-cpp", "server", "q4_0", [_level(1, 300, 0.02, 0.003), _level(100, 1000, 0.3, 0.09)], failed=["stopped: 8 requests/s were left out"]),  # noqa: E501
    "vllm, prefix, prefix cache, Llama-3.1-8B": _life("vllm", "prefix", "prefix cache", [_prefix("common", 3000, 401_408), _prefix("own", 300, 0)]),  # noqa: E501
    "vllm, offline, as it comes, Llama-2-7B": _life("vllm", "offline", "as it comes", _speed(1, 0.6), shape=OLD),
    "machine, roof, as it comes": {"engine": "machine", "work": "roof", "option": "as it comes", "failed": [], "rows": [{"kind": "roof", "bandwidth_bytes_per_s": 4.4e12, "flops_per_s": 8e14}]},  # noqa: E501
}  # fmt: skip
SCALING = {
    "vllm, offline, as it comes, Llama-3.1-8B": _life("vllm", "offline", "as it comes", [
        *_speed(1, 0.8, joules=256.0), {"kind": "longer", "users": 2, "input_tokens": 1024, "output_tokens": 2048, "seconds": 2.0, "joules": 1024.0},  # noqa: E501
    ]),
    "vllm, offline, as it comes, Llama-3.1-8B, TP2": _life("vllm", "offline", "as it comes", _speed(1, 0.4), gpus=2),
    "vllm, server, prefix cache, Llama-3.1-8B": _life("vllm", "server", "prefix cache", [
        _level(1, 200, 0.02, 0.005), _level(100, 10_000, 0.3, 0.008), {"kind": "pool", "tokens": 2000, "bytes_per_token": 131_072.0},  # noqa: E501
        _arrivals(8),
    ]),
    "sglang, server, prefix cache, Llama-3.1-8B": _life("sglang", "server", "prefix cache", [_level(1, 201, 0.01, 0.0049), _level(100, 9_900, 0.2, 0.0081)]),  # noqa: E501
    "machine, links, as it comes, TP2": {"engine": "machine", "work": "links", "option": "as it comes", "failed": [], "rows": [{"kind": "all-reduce"}]},  # noqa: E501
}  # fmt: skip


def _written(folder, **runs) -> None:
    for run, lives in runs.items():
        source = {"machine": MACHINE, "date": "2026-11-30", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
        found = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": lives}
        records.write_json(folder / "nvidia-h200-32-cores" / f"gpu-{run}.2026-11-30.json", found)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where this test's records are."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def found(folder) -> dict:
    """Llama-3.1-8B on one GPU, of two records of one machine."""
    _written(folder, today=TODAY, scaling=SCALING)
    return today.load()


def test_rows_are_of_one_shape_on_one_gpu_as_it_comes_first(found):
    """From both records; no TP2, no link, no other shape. Offline stands before the server."""
    shown = today.throughput(found)
    assert list(shown.index) == [
        "vLLM, offline", "vLLM, offline, fp8 weights", "vLLM, server", "SGLang, server", "llama.cpp Q4_0, offline",
        "llama.cpp Q4_0, server",
    ]  # fmt: skip
    assert shown.loc["vLLM, offline", "1 user"] == "160 (160 to 160)"
    assert shown.loc["vLLM, server", "100 users"] == "10,000 (9,900 to 10,100)"
    assert shown.loc["vLLM, offline, fp8 weights", "100 users"] == "-"
    assert today.recorded_shapes() == [LLAMA, OLD] and list(today.throughput(today.load(OLD)).index) == ["vLLM, offline"]


def test_it_is_said_that_one_of_two_gpus_was_used(found):
    """With the shape, not the run's."""
    told = today.throughput(found).attrs["recorded"]
    assert told.startswith("recorded on one of 2 x NVIDIA H200, ") and "random, shape of Llama-3.1-8B, " in told


def test_a_missing_life_and_one_that_was_cut_off_are_said(found):
    """Beside the rest of the planned ones; what is there has no line."""
    said = today.left_out(found)
    assert "sglang, offline, as it comes, Llama-3.1-8B: planned, not recorded yet" in said
    assert "llama-cpp, server, q4_0, Llama-3.1-8B: stopped: 8 requests/s were left out" in said
    assert not any(line.startswith("vllm, server, prefix cache") or "TP2" in line or OLD in line for line in said)


def test_waits_of_the_servers_alone(found):
    """In milliseconds."""
    assert today.served(found).loc[("vLLM, server", "100 users")].tolist() == ["300.0 (297.0 to 303.0)", "8.00 (7.92 to 8.08)"]


def test_longer_loads_are_told_apart_from_the_short_one(found):
    """Those that have some."""
    shown = today.longer(found)
    assert list(shown.index) == ["vLLM, offline"] and list(shown.columns) == ["1,024/1,024, 2 users"]


def test_joules_are_those_of_a_token(found):
    """Of the repeats offline; of a server of all its answers; llama.cpp's bench has none."""
    shown = today.joules(found)
    assert shown.loc["vLLM, offline", "128/128, 1 user"] == "2 (2 to 2)"
    assert shown.loc["vLLM, offline", "1,024/1,024, 2 users"] == "0.5"
    assert shown.loc["llama.cpp Q4_0, server", "128/128, 1 user"] == "2"
    assert "llama.cpp Q4_0, offline" not in shown.index


def test_a_common_prefix_stands_beside_nothing_in_common(found):
    """With the share of all prompt tokens that came from the cache; a repeat that told nothing is left out of it."""
    (shown,) = today.prefix(found).to_dict("records")
    assert (shown["x tokens/s"], shown["cached, common"], shown["prompts"]) == ("10.0", "98%", "100 of 4,096 tokens")


def test_a_turn_stands_beside_a_new_prompt_as_long(found):
    """The wait of each turn, and how much of its prompt the server says was cached."""
    turn = {"kind": "turn", "turn": 1, "prompt_tokens": [640], "cached_tokens": 480.0, "ttft_s": [0.02, 0.03, 0.04]}
    new = {"kind": "new", "prompt_tokens": [640], "cached_tokens": 0, "per_repeat": {"ttft_s": [0.08, 0.09, 0.1]}}
    refused = {**new, "cached_tokens": 480, "per_repeat": {"ttft_s": [None, None, None]}}
    talk = _life("vllm", "conversations", "prefix cache", [{"kind": "loaded", "seconds": 1}, turn, refused])
    assert list(today.conversations({**found, "lives": {"talk": talk}})["TTFT, ms"]) == ["30 (20 to 40)", "-"]
    talk = {**talk, "rows": [turn, new]}
    shown = today.conversations({**found, "lives": {"talk": talk}})
    assert list(shown.index) == [("vLLM", "turn 2"), ("vLLM", "new")]
    assert list(shown["cached"]) == ["75%", "0%"]
    assert list(shown["TTFT, ms"]) == ["30 (20 to 40)", "90 (80 to 100)"]


def test_pools_are_held_against_the_calculator(found):
    """The bytes of a token where they are told; always weights and pool against the device. llama.cpp: what it was asked for."""
    shown = today.pools(found)
    assert shown.loc["vLLM, server", ["bytes a token", "computed", "error"]].tolist() == ["131,072", "131,072", "+0.0%"]
    assert shown.loc["vLLM, offline, fp8 weights", "bytes a token"] == "-"
    weights = 8_030_261_248  # of eight bits
    assert (
        shown.loc["vLLM, offline, fp8 weights", "weights + pool computed, GiB"] == f"{(weights + 1000 * TOKEN_BYTES) / 2**30:.1f}"
    )
    assert shown.loc["llama.cpp Q4_0, offline", "KV pool, tokens"] == "25,600"


def test_sglang_tells_a_pool_in_gib():
    """From which the bytes of a token follow."""
    usage = {"kvcache": 0.125, "token_capacity": 1024}
    life = _life("sglang", "offline", "as it comes", [{"kind": "holds", "pool_tokens": 1000, "memory_usage_gib": usage}])
    assert today._pool(life) == (1024, TOKEN_BYTES)


def _eight(engine: str, option: str, seconds: float, pool: int) -> dict:
    return _life(engine, "offline", option, [{"kind": "holds", "pool_tokens": pool}, *_speed(1, seconds)])


FP8_KV = {
    "vllm, offline, fp8 weights, Llama-3.1-8B": _eight("vllm", "fp8 weights", 0.5, 1000),
    "vllm, offline, fp8 weights and KV, Llama-3.1-8B": _eight("vllm", "fp8 weights and KV", 0.4, 2000),
    "sglang, offline, fp8 weights and KV, Llama-3.1-8B": _eight("sglang", "fp8 weights and KV", 0.4, 0),
}  # fmt: skip


def test_an_fp8_cache_stands_beside_fp8_weights_alone(folder):
    """Each against the engine's own row above; where that is missing, or a pool is not told, there is a dash."""
    _written(folder, today=FP8_KV, scaling=SCALING)
    shown = tables.eight_bits(today.load())

    assert list(shown.index) == [
        "vLLM, offline", "vLLM, offline, fp8 weights", "vLLM, offline, fp8 weights and KV", "SGLang, offline, fp8 weights and KV",
    ]  # fmt: skip
    both = shown.loc["vLLM, offline, fp8 weights and KV"]
    assert list(both[["1 user", "x at 1", "KV pool, tokens", "x pool"]]) == ["320 (320 to 320)", "1.25", "2,000", "2.00"]
    assert list(shown.loc["vLLM, offline, fp8 weights", ["x at 1", "x pool"]]) == ["1.60", "-"]  # as it comes told no pool
    assert list(shown.loc["SGLang, offline, fp8 weights and KV", ["x at 1", "KV pool, tokens", "x pool"]]) == ["-", "-", "-"]


def test_an_fp8_cache_is_in_the_other_tables_too(folder):
    """Its rate, and a pool that the calculator takes half the bytes for; the one that is missing is said."""
    _written(folder, today={key: one for key, one in FP8_KV.items() if one["engine"] == "vllm"})
    found, row = today.load(), "vLLM, offline, fp8 weights and KV"

    assert today.throughput(found).loc[row, "1 user"] == "320 (320 to 320)"
    assert list(today.pools(found).loc[row, ["KV pool, tokens", "computed"]]) == ["2,000", f"{TOKEN_BYTES // 2:,}"]
    assert "sglang, offline, fp8 weights and KV, Llama-3.1-8B: planned, not recorded yet" in today.left_out(found)


def test_without_eight_bits_there_is_no_such_table(folder):
    """Nor an error."""
    _written(folder, today={"vllm, offline, as it comes, Llama-2-7B": TODAY["vllm, offline, as it comes, Llama-2-7B"]})
    assert tables.eight_bits(today.load(OLD)).empty


def test_who_is_ahead_is_said_of_the_servers(found):
    """By the same words as of a CPU."""
    assert standings.headline(found) == "Most tokens/s: llama.cpp (1 user), vLLM or SGLang (100 users)"
    assert list(found["engines"]) == ["vllm", "sglang", "llama-cpp-q4_0"]


def test_the_finding_is_worked_out(found):
    """Names share a place where their ranges touch; arrivals are told with the length of their prompts."""
    assert today.finding(found) == (
        "Fastest for each user: llama.cpp (Q4_0) with 1 user (333 tokens/s), vLLM or SGLang with 100 users (125 tokens/s). "
        "All together make at most 10,000, and 1,024 where requests of 1,024 tokens arrive"
    )


def test_slots_are_those_of_the_commands(found):
    """As each engine's option is called; who was told none has its own number, which is not known."""
    found["lives"]["vllm, server, prefix cache, Llama-3.1-8B"]["arguments"] = ["--max-num-seqs", "128", "--port"]
    found["lives"]["llama-cpp, server, q4_0, Llama-3.1-8B"]["arguments"] = ["--parallel", "100"]
    assert today.slots(found) == "slots: vLLM 128, SGLang not told, llama.cpp 100"


def test_without_the_other_record_there_are_rows_all_the_same(folder):
    """Of what is there, with a finding that says nothing of arrivals."""
    _written(folder, today=TODAY)
    found = today.load()
    assert "vLLM, server" not in today.throughput(found).index and "arrive" not in today.finding(found)
    assert "vllm, server, prefix cache, Llama-3.1-8B: planned, not recorded yet" in today.left_out(found)
    assert today.arrivals(found).empty


def test_without_a_server_nothing_is_found(folder):
    """Nor drawn; it is said so."""
    _written(folder, today={"vllm, offline, as it comes, Llama-2-7B": TODAY["vllm, offline, as it comes, Llama-2-7B"]})
    found = today.load(OLD)
    assert today.every_load(found) == {} and today.finding(found) == "no server and no static batch is recorded"
    assert today.prefix(found).empty and today.served(found).empty


@pytest.fixture(scope="module")
def shipped() -> dict:
    """The lives of Llama-3.1-8B in this collection's own record."""
    return today.load()


class TestShippedRecord:
    """What this collection's own record says."""

    def test_every_engine_of_the_notebooks_is_there(self, shipped):
        """Served, or a static batch."""
        assert list(shipped["engines"]) == ["transformers-batch", "vllm", "sglang", "llama-cpp-q4_0"]

    @pytest.mark.parametrize("name", ["transformers", "vllm", "sglang"])
    def test_the_releases_are_those_of_the_notebooks(self, shipped, name):
        """As 07 and docs/gpu.md say."""
        pins = (paths.REPOSITORY / "requirements" / f"{name}-cuda.txt").read_text()
        (version,) = {one["versions"][name] for one in shipped["lives"].values() if one["engine"] == name}
        assert re.search(rf"^{name}(\[\w+\])?=={re.escape(version)}\b", pins, re.M), f"{name} {version} was measured"

    def test_every_table_is_in_the_text(self):
        """By its name, and every shape."""
        said = tables.text()
        names = ("throughput", "served", "arrivals", "longer", "joules", "prefix", "pools", "eight_bits")
        part = said[said.index("## today") :]
        assert all(f"\n{name}\n" in part for name in names) and "roof: " in part
        assert all(f"## today, {shape}: " in said for shape in today.recorded_shapes())

    def test_the_calculator_tells_every_pool(self, shipped):
        """A token's bytes within a thousandth; weights and pool within a tenth of what the device held, and never much above."""
        shown = today.pools(shipped)
        told = [float(error.rstrip("%")) for error in shown["error"] if error != "-"]
        held = [float(error.rstrip("%")) for error in shown["its error"]]
        assert len(told) >= 4 and max(map(abs, told)) <= 0.1 and all(-10 <= error <= 1 for error in held)

    def test_eight_bits_are_faster(self, shipped):
        """With every number of users, in both engines."""
        lives = {read.label(one): one for one in read.lives(shipped, "offline")}
        for engine in ("vLLM", "SGLang"):
            plain, eight = lives[f"{engine}, offline"], lives[f"{engine}, offline, fp8 weights"]
            assert all(standings.change(read.rates(plain)[n], read.rates(eight)[n]) == "more" for n in (1, 10, 100))

    def test_arrivals_of_a_life_of_their_own_stand_behind_those_at_once(self, shipped):
        """llama.cpp's server had no time for them: they are in a second life, with a row and a point for each rate."""
        loads = [level["users"] or level["rate_per_s"] for level in today.every_load(shipped)["llama-cpp-q4_0"]]
        assert loads == [1, 10, 100, 1, 2, 4]
        assert list(today.arrivals(shipped).loc["llama.cpp Q4_0, server"].index) == ["1", "2", "4"]

    def test_the_picture_has_a_line_for_each_engine_and_arrivals_apart(self, shipped):
        """Labelled at their ends; those that have no arrivals have no second line."""
        every = today.every_load(shipped)
        (axes,) = plots.per_user(every, today.finding(shipped), gpu=True).axes
        drawn = [line.get_linestyle() for line in axes.lines if len(line.get_xdata())]
        arrive = sum(any(not level["users"] for level in of) for of in every.values())
        assert (drawn.count("-"), drawn.count("--")) == (len(every), arrive) and arrive >= 3
        names = {"vLLM", "SGLang", "llama.cpp (Q4_0)", "HF Transformers (static batch)"}
        assert names <= {text.get_text() for text in axes.texts}


def test_seconds_that_were_over_are_no_number():
    """A record of before says that -43 s were left."""
    found = {"shape": LLAMA, "lives": {}}
    (key, *_) = (line.partition(": ")[0] for line in today.left_out(found))
    found["lives"][key] = {"failed": ["stopped: 8 requests/s were left out: -43 s were left"]}

    assert f"{key}: stopped: 8 requests/s were left out: no time was left" in today.left_out(found)
