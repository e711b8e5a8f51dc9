"""What a record says in words: nobody is ahead, and nothing gained, where two ranges touch."""

from helpers.studies import standings


def level(users: int, median: float | None, spread: float = 0.05, ttft_s: float = 0.1) -> dict:
    def figure(value: float) -> dict:
        return {"median": value, "low": value * (1 - spread), "high": value * (1 + spread)}

    return {"users": users, "output_tokens_per_s": median and figure(median), "ttft_s": median and figure(ttft_s)}


RECORD = {
    "engines": {
        "transformers": [level(1, 20), level(10, 100, ttft_s=1.2), level(100, 44, ttft_s=24)],
        "transformers-batch": [level(1, 25), level(10, 90), level(100, 600, ttft_s=9)],
        "vllm": [level(1, 40), level(10, 200), level(100, 430)],
        "sglang": [level(1, 18), level(10, None), level(100, 105)],
        "llama-cpp-q4_0": [level(1, 150), level(10, 190), level(100, 196)],
        "llama-cpp": [level(1, 97), level(10, 110), level(100, 130)],
    }
}


def test_the_first_is_compared_with_the_best_of_another_framework():
    """Not with another type of its own, nor with a batch that nobody was served from."""
    one, ten, hundred = standings.leads(RECORD)

    assert (one.first, one.second, one.apart) == ("llama-cpp-q4_0", "vllm", True) and one.times == 150 / 40
    assert (ten.first, ten.second, ten.apart) == ("vllm", "llama-cpp-q4_0", False)
    assert (hundred.first, hundred.second) == ("vllm", "llama-cpp-q4_0")


def test_ranges_that_touch_are_said_to_touch():
    """In the lines, and in the title."""
    one, ten, hundred = standings.ahead(RECORD)

    assert one == "1 user: llama.cpp (Q4_0) first with 150 (142 to 158) tokens/s, 3.8 times vLLM; the ranges do not touch"
    assert ten.endswith("1.05 times llama.cpp (Q4_0); the ranges touch, so this may be chance")
    assert standings.headline(RECORD) == "Most tokens/s: llama.cpp (1 user), vLLM or llama.cpp (10 users), vLLM (100 users)"


def test_equal_weights_are_compared_too():
    """4 bits against 16 are 3.8 times; 16 against 16 are 1.5 times. Without a type that both have nothing is said."""
    known = {**RECORD["engines"], "llama-cpp-bf16": [level(1, 60)]}
    line, *_ = standings.ahead({"engines": known})

    assert " 3.8 times vLLM (1.5 times with bf16 on both sides); " in line
    assert standings.leads(RECORD)[0].equal is None is standings.leads(RECORD)[2].equal


def test_nobody_is_first_where_ranges_touch():
    """Nor with nothing."""
    spreads = ((1, 0.9, 1.1), (2, 1.9, 2.1), (1.5, 1, 2))
    low, high, wide = ({"median": middle, "low": least, "high": most} for middle, least, most in spreads)

    assert standings.first({"vllm": low, "sglang": high}) == "sglang" == standings.first({"sglang": high})
    assert standings.first({"vllm": wide, "sglang": high}) is None
    assert standings.first({"vllm": dict.fromkeys(low, 0)}) is None and standings.first({}) is None


def test_a_number_of_users_with_one_figure_has_no_second():
    """The others were refused."""
    alone = {"engines": {"vllm": [level(1, 40), level(10, 40)], "sglang": [level(1, None), level(10, None)]}}

    assert standings.ahead(alone)[0] == "1 user: vLLM first with 40 (38 to 42) tokens/s, no other figure"
    assert standings.headline(alone) == "Most tokens/s: vLLM (1 and 10 users)"


def test_more_users_gain_lose_or_do_neither():
    """Each number of users against the one before it; a refused one is said."""
    said = dict(line.split(": ", 1) for line in standings.gains(RECORD))

    assert said["HF Transformers"] == (
        "5.0 times with 10 users (more than with 1); 2.2 times with 100 users (less than with 10); "
        "first token after 0.1, 1.2, 24.0 s"
    )
    assert "1.3 times with 100 users (no more than with 10)" in said["llama.cpp (Q4_0)"]
    assert said["SGLang (PyTorch attention)"] == (
        "5.8 times with 100 users (more than with 1); no figure with 10 users; first token after 0.1, 0.1 s"
    )


def test_who_lost_by_the_last_users_is_named():
    """Of the rows that are drawn; a level without a figure is no loss."""
    assert standings.lost(RECORD) == "HF Transformers"
    assert standings.lost({"engines": {"vllm": [level(1, 40), level(10, None)], "sglang": [level(1, 20)]}}) == "none"


def test_a_server_stands_beside_the_same_library_without_one():
    """With the most users; or it is said that one of the two has no figure."""
    assert standings.batch(RECORD) == (
        "HF Transformers, 100 users: its static batch makes 13.6 times the tokens/s of its server; "
        "first token after 24.0 (server) and 9.0 s (batch)"
    )
    assert standings.batch({"engines": {"vllm": []}}).endswith("do not both have a figure")
