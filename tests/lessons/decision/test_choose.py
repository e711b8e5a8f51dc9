"""The decision: the cases of an expert, rules that may not contradict a record, arithmetic that is the calculator's own."""

import copy
import dataclasses
import itertools
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from offenders import over

from helpers import kernels
from helpers.bench import __main__ as bench
from helpers.bench import ask
from helpers.lessons.decision import choose, commands, drawing, interpreter
from helpers.lessons.scaling import launch, parallelism
from helpers.weights import capacity, shapes, sizes

DATA = choose.load()
CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text())["cases"]
DEVICES = {"cpu": "none", "gpu": "datacentre"}  # one for each kind of record
USERS = {"one": 1, "ten": 10, "hundred": 100}


def told(**answers) -> dict:
    """The whole answer as data."""
    return interpreter.interpret(DATA, answers)


# --- the cases ------------------------------------------------------------------------------------


@over(lambda: {case["name"]: {"case": case} for case in CASES}, "case")
def test_what_an_expert_would_say(case):
    """Who stands first, who is on the list beside them, and the words that must not be missing."""
    found = choose.shortlist(**case["answers"])
    first, rest = (list(found.groups[0]), found.groups[1:]) if found.groups else ([], ())

    assert sorted(first) == sorted(case["first"])
    assert "then" not in case or [name for group in rest for name in group] == case["then"]
    assert [words for words in case.get("says", []) if words not in str(found)] == []


def test_there_are_twelve_cases_of_readers_and_eight_of_ours():
    """At the least, each with a reason in words."""
    assert len(CASES) >= 20 and all(len(case["why"]) > 30 for case in CASES)


# --- rules and records ----------------------------------------------------------------------------


def contradictions(data: dict, answers: dict) -> list[str]:
    """A line for each slower framework that stands before a faster one of the record without a rule that says why it may."""
    complete = interpreter.with_fit(data, answers)
    found, rows = interpreter.order(data, complete), interpreter.figures(data, complete)
    place = {name: i for i, group in enumerate(found["groups"]) for name in group}
    can = [name for name in rows if name not in found["out"]]
    wrong = []
    for slow, fast in itertools.permutations(can, 2):
        ahead = place.get(slow, 99) < place.get(fast, 99)
        if ahead and rows[fast]["median"] > rows[slow]["median"] and not interpreter.alike(data, rows[fast], rows[slow]):
            if not allowed(data, found["hits"], slow, fast):
                wrong.append(f"{slow} ({rows[slow]['median']}) before {fast} ({rows[fast]['median']})")
    return wrong


def allowed(data: dict, hits: list[int], slow: str, fast: str) -> bool:
    """Whether a rule that puts the one first or the other behind says why a speed does not decide."""
    for i in hits:
        rule = data["rules"][i]
        names = {"first": slow, "behind": fast}
        if rule.get("although") and names.get(rule["effect"]) in interpreter.about(data, rule):
            return True
    return False


def compared() -> dict[str, dict]:
    """Every work that is generation, at each number of users that a record has, of each record: by its device and its model."""
    works = [one["key"] for one in interpreter.question(DATA, "work")["options"] if not one.get("unmeasured")]
    return {
        f"{work}, {record['machine']}, {users}": {
            "answers": {"work": work, "device": DEVICES[kind], "users": users, "model": record["model"]}
        }
        for work in works
        for kind, record in every_record()
        for users in USERS
    }


def every_record() -> list[tuple[str, dict]]:
    """Each record with the kind of its device."""
    return [(kind, record) for kind, records in DATA["facts"]["evidence"].items() for record in records]


@over(compared, "answers")
def test_no_rule_contradicts_a_record(answers):
    """The slower one is never preferred by more than the spread, unless a rule says why; with and without the model."""
    open_model = {key: value for key, value in answers.items() if key != "model"}

    assert contradictions(DATA, answers) == []
    assert contradictions(DATA, open_model) == []


def test_a_rule_that_contradicts_a_record_is_found():
    """Transformers first for everybody, and no reason why a slower one may be."""
    data = copy.deepcopy(DATA)
    rule = {"when": {}, "for": ["transformers"], "effect": "first", "because": "is ours", "claims": ["C001"]}
    data["rules"] = [one for one in data["rules"] if "transformers" not in one["for"]] + [rule]

    assert contradictions(data, {"work": "chat", "device": "datacentre", "users": "hundred"}) != []


def test_every_record_is_compared_at_one_ten_and_a_hundred_users():
    """On a CPU and on two GPUs, with at least three frameworks that have a figure; its model leads to it."""
    assert {kind for kind, _ in every_record()} == set(DEVICES)
    assert any("H200" in record["machine"] for _, record in every_record())
    for kind, record in every_record():
        for users, count in USERS.items():
            answers = {"work": "chat", "device": DEVICES[kind], "users": users, "model": record["model"]}
            rows = interpreter.figures(DATA, answers)

            assert interpreter.nearest_record(DATA, answers) == record
            assert {row["users"] for row in rows.values()} == {count}, record["machine"]
            assert len(rows) >= 3


@pytest.mark.parametrize(
    ("model", "of"),
    [
        ("Llama-2-7B", "Llama-2-7B"), ("Llama-3.1-8B", "Llama-3.1-8B"), ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("7B", "Llama-2-7B"), ("Llama-3.1-70B", "Llama-3.1-8B"), ("Qwen2.5-0.5B", "Llama-2-7B"), ("235B-A22B", "Llama-3.1-8B"),
        ("", "Llama-3.1-8B"),
    ],
)  # fmt: skip
def test_the_nearest_record_is_that_of_the_model_then_of_the_size_then_the_newest(model, of):
    """Two GPUs have one of each."""
    assert interpreter.nearest_record(DATA, {"device": "datacentre", "model": model})["model"] == of


def test_of_two_records_of_one_model_the_newest_is_taken():
    """They come the newest first."""
    data = copy.deepcopy(DATA)
    records = data["facts"]["evidence"]["gpu"]
    records.append(records[0] | {"date": "2020-01-01"})

    assert [one["date"] for _, one in every_record()] == sorted((one["date"] for _, one in every_record()), reverse=True)
    assert interpreter.nearest_record(data, {"device": "datacentre", "model": "Llama-3.1-8B"})["date"] == records[0]["date"]


def test_where_a_rule_says_four_bits_the_record_has_four_bits():
    """The row of llama.cpp with one user, of every record."""
    for kind, record in every_record():
        answers = {"work": "chat", "device": DEVICES[kind], "users": "one", "model": record["model"]}

        assert "Q4" in interpreter.figures(DATA, answers)["llama-cpp"]["row"]


def test_equal_bits_are_said_beside_the_lead_of_four():
    """Of llama.cpp with one user: every pair of the record, with the rule that points to it; with more users nothing."""
    for kind, record in every_record():
        answers = {"work": "chat", "device": DEVICES[kind], "model": record["model"]}
        one = next(one for one in told(users="one", **answers)["entries"] if one["name"] == "llama-cpp")

        assert record["equal_bits"]
        for pair in record["equal_bits"]:
            rates = [f"{DATA['titles'][name]} {interpreter.brief(rate)}" for name, rate in pair["rates"]]
            assert f"{pair['bits']} bits: {', '.join(rates)}" in one["speed"]
        assert any("look at equal bits too" in reason["text"] for reason in one["against"])
        assert not any("equal bits" in str(entry) for entry in told(users="hundred", **answers)["entries"])


def test_the_picture_is_right_about_equal_bits():
    """Its words "on a CPU and an H100, not on an H200": by each record, in every number of bits."""
    assert any("on a CPU and an H100, not on an H200" in line for step in DATA["picture"] for line in step["why"])
    for kind, record in every_record():
        firsts = {pair["rates"][0][0] for pair in record["equal_bits"]}
        if kind == "cpu" or "H100" in record["machine"]:
            assert firsts == {"llama-cpp"}
        if "H200" in record["machine"]:
            assert "llama-cpp" not in firsts


def test_four_bits_are_warned_of_in_every_framework():
    """llama.cpp is started with Q4_0 always; the others only where nothing larger fits."""
    found = told(work="chat", device="consumer", users="one", model="Qwen3-30B-A3B")["entries"]

    assert {"llama-cpp", "vllm"} <= {one["name"] for one in found}
    for one in found:
        assert any("measure" in reason["text"] and "on your own text" in reason["text"] for reason in one["against"])


def test_a_figure_of_a_stand_in_takes_nobody_off_the_list():
    """SGLang without its kernels on a CPU: it is not named slow, and the reason says what was run."""
    for users in USERS:
        left = {one["name"]: one for one in told(work="chat", device="none", users=users)["left"]}

        assert "tokens/s" not in left["sglang"]["text"]
        assert any("need AMX" in reason["text"] for reason in left["sglang"]["reasons"])


def test_ties_are_ties():
    """Two whose repeats overlap or whose medians are close share a place; a third that is slower does not."""
    rows = {
        "a": {"median": 100, "low": 90, "high": 110}, "b": {"median": 91, "low": 91, "high": 91},
        "c": {"median": 60, "low": 50, "high": 70},
    }  # fmt: skip

    assert interpreter.by_speed(DATA, ["c", "b", "a", "d"], rows) == [["b", "a"], ["c"], ["d"]]


# --- does it fit ----------------------------------------------------------------------------------


@over(lambda: {name: {"name": name} for name in DATA["facts"]["models"]}, "name")
def test_the_arithmetic_is_the_calculators(name):
    """Weights, cache and users that fit, of each model, in each type, on a memory that holds some of them."""
    sheet = shapes.of_config({**_config(name)}, name)
    for dtype, memory_gib in itertools.product(("bfloat16", "fp8", "q4_0"), (24, 80, 640)):
        given = {
            "sheet": DATA["facts"]["models"][name], "tokens": min(4096, sheet.shape.context), "users": 1,
            "memory_gib": memory_gib, "gpus": 1, "usable": DATA["usable"], "gguf": True, "spread": False,
        }  # fmt: skip
        ours = interpreter.fit(DATA, given, [dtype])
        theirs = capacity.ask(sheet, memory_gib * sizes.GIB, context=given["tokens"], dtype=dtype, usable=DATA["usable"])

        assert (ours["weights"], ours["each"]) == (theirs.weights_bytes, theirs.kv_bytes)
        assert ours["loads"] == theirs.fits
        assert not ours["loads"] or ours["holds"] == theirs.most_users


@over(lambda: {name: {"name": name} for name in DATA["facts"]["models"]}, "name")
def test_a_cache_in_eight_bits_is_the_calculators(name):
    """Its bytes, in both types that a command can ask for; a head that no block divides is left out, as there."""
    sheet = shapes.of_config({**_config(name)}, name)
    row = sheet.shape.latent or sheet.shape.head_dim
    for kv_dtype in ("fp8", *(["q8_0"] if row % 32 == 0 else [])):
        theirs = capacity.ask(sheet, 80 * sizes.GIB, context=4096, dtype="q4_0", kv_dtype=kv_dtype)

        assert interpreter.user_bytes(DATA, DATA["facts"]["models"][name]["cache"], theirs.context, kv_dtype) == theirs.kv_bytes


def test_a_cache_of_fewer_bits_is_tried_before_a_framework_is_excluded():
    """On the GPU by each engine's own option; where 16 bits fit nothing is said of it, and where 8 do not it is nowhere."""
    long = {"work": "chat", "device": "consumer", "users": "one", "model": "Llama-3.1-8B", "context": "128k"}
    tight, wide, none = (told(memory_gib=memory, **long) for memory in (16, 32, 4))

    lines = {one["name"]: one["commands"][0] for one in tight["entries"]}
    assert "--cache-type-v q8_0" in lines["llama-cpp"]
    assert "--kv-cache-dtype fp8" in lines["vllm"] and "--kv-cache-dtype fp8_e4m3" in lines["sglang"]
    assert all("KV cache in 8 bits" in " ".join(one["fit"]) for one in tight["entries"])
    assert {"transformers"} <= {one["name"] for one in tight["out"]}
    assert not any("cache-" in line for one in wide["entries"] for line in one["commands"])
    assert "not even as 4 bits with a KV cache in 8" in " ".join(none["said"])


def _config(name: str) -> dict:
    from helpers.lessons.scaling import parallelism

    return parallelism.known()[name]


def test_the_smallest_number_of_gpus_that_holds_all_is_taken():
    """One of eight for a small model, and copies on the others; eight for a large one."""
    small = choose.shortlist(work="chat", device="datacentres", users="ten", model="Llama-3.1-8B")
    large = choose.shortlist(work="chat", device="datacentres", users="hundreds", model="Llama-3.1-70B")

    assert "on 1 of 8 GPUs" in str(small) and "copies: 8 in all" in str(small) and "--tensor-parallel-size" not in str(small)
    assert "on 8 of 8 GPUs" in str(large)


def test_an_unknown_architecture_is_said_with_what_can_be_said(tmp_path):
    """A config whose parameters are not counted: its kind, and the way to go on by its size."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(_config("Llama-3.1-8B") | {"model_type": "brand-new"}))
    with pytest.raises(choose.DecisionError, match="'brand-new'.*such as model='13B'"):
        choose.shortlist(model=file)

    assert "taken as that of" in str(choose.shortlist(model="13B", device="consumer"))


def test_a_config_of_ones_own_is_counted(tmp_path):
    """By its file, as a model of the table."""
    file = tmp_path / "mine" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(_config("Llama-3.1-8B")))
    own = choose.shortlist(model=file, device="datacentre", users="ten")
    known = choose.shortlist(model="Llama-3.1-8B", device="datacentre", users="ten")

    assert own.groups == known.groups
    assert [one["fit"][0].partition(" as ")[2] for one in own.told["entries"]] == [
        one["fit"][0].partition(" as ")[2] for one in known.told["entries"]
    ]


# --- from the first answer on ---------------------------------------------------------------------


def combinations() -> list[dict]:
    """Answers to work, users, device and vendor, each combination with every second model left out."""
    return list(drawing.combinations(DATA))


def test_a_shortlist_has_one_to_three():
    """Of every combination: never more, and none only where nothing can hold the model."""
    sizes_found = {sum(map(len, interpreter.shortlist(DATA, answers))) for answers in combinations()}

    assert sizes_found <= {1, 2, 3}


def test_there_is_a_shortlist_before_the_first_answer_and_the_next_question_changes_it():
    """Nothing is answered; and the ways that are named do lead to the lists that are named."""
    found = told()

    assert 1 <= sum(map(len, found["groups"])) <= 3 and found["next"]["key"]
    for key, groups in found["next"]["ways"]:
        assert interpreter.shortlist(DATA, {found["next"]["key"]: key}) == groups != found["groups"]


def test_an_answer_that_would_change_nothing_is_not_asked_for():
    """Of those who look inside: whatever else they say, it is Transformers."""
    assert told(work="inside")["next"] == {"key": "", "ways": []}
    assert told(work="chat")["next"]["key"]


def test_the_turns_that_are_told_do_turn_the_answer():
    """Each single other answer puts those first whom it names."""
    answers = {"work": "chat", "device": "datacentre", "users": "one"}
    found = told(**answers)

    assert found["turns"]
    for key, other, first in found["turns"]:
        assert interpreter.shortlist(DATA, {**answers, key: other})[:1] == ([first] if first else [])


def test_every_framework_is_on_a_list_and_every_other_one_has_a_reason():
    """None is there only to lose; none is left out without a word."""
    seen = set()
    for answers in combinations()[::7]:
        found = told(**answers)
        on = [name for group in found["groups"] for name in group]
        off = [one["name"] for one in found["out"] + found["left"]]
        seen |= set(on)
        assert sorted(on + off) == sorted(DATA["frameworks"])

    assert seen == set(DATA["frameworks"])


# --- speeds, limits, cost -------------------------------------------------------------------------


def test_a_speed_names_its_machine_and_day():
    """And says that it is another one elsewhere."""
    (first, *_) = told(work="chat", device="datacentre", users="ten")["entries"]
    source = DATA["facts"]["evidence"]["gpu"][0]

    assert all(words in first["speed"] for words in (source["machine"], source["date"], source["weights"], "Another model"))


def test_a_model_that_one_framework_ran_alone_has_its_own_speed():
    """70B on several GPUs: vLLM's own rate of that model is said, with how and where; it orders nobody and prices nothing."""
    answers = {"work": "chat", "device": "datacentres", "users": "hundred", "model": "Llama-3.1-70B", "price_per_hour": 30}
    found = {one["name"]: one for one in told(**answers)["entries"]}
    (row,) = (row for row in DATA["facts"]["alone"] if (row["model"], row["users"]) == ("Llama-3.1-70B", 100))
    rate, low, high = (interpreter.brief(row[key]) for key in ("median", "low", "high"))

    assert "Of Llama-3.1-70B itself vLLM alone was recorded" in found["vllm"]["speed"]
    assert f" {rate} tokens/s ({low} to {high}) with 100" in found["vllm"]["speed"]
    assert all(words in found["vllm"]["speed"] for words in (row["row"], row["machine"], row["date"]))
    assert "alone" not in found["sglang"]["speed"] and "No price follows" in found["vllm"]["cost"]


@pytest.mark.parametrize(
    "answers", [{"model": "Llama-3.1-8B", "device": "datacentre"}, {"model": "Llama-3.1-70B", "device": "none"}], ids=str
)
def test_a_rate_of_its_own_is_said_where_the_nearest_record_lacks_it(answers):
    """Not where the compared engines had the model on as many GPUs, and not of a GPU to who has none."""
    found = told(work="chat", users="ten", **answers)

    assert not any("alone was recorded" in one["speed"] for one in found["entries"])


def test_a_limit_that_the_record_did_not_keep_speaks_against():
    """With a hundred users on two cores no first token comes in 0.2 s."""
    found = told(work="chat", device="none", users="hundred", limits="tight")
    free = told(work="chat", device="none", users="hundred", limits="none")

    assert any("over your 200 ms" in reason["text"] for reason in found["entries"][0]["against"])
    assert not any("over your" in reason["text"] for reason in free["entries"][0]["against"])
    assert "--slo ttft=0.2,tpot=0.02" in found["measure"]


def test_cost_follows_from_the_price_and_the_works_lengths():
    """Twice the price, twice the cost; without a price none is said. It is that of the work's own tokens in and out."""
    answers = {"work": "chat", "device": "datacentre", "users": "hundred"}
    each_in, each_out = DATA["facts"]["evidence"]["gpu"][0]["token_seconds"]["vllm"]
    cost = {price: told(**answers, **price_of(price))["entries"][0]["cost"] for price in (0, 3, 6)}

    assert cost[0] == ""
    for price in (3, 6):
        per_token = price / 3600 * (512 * each_in + 256 * each_out) / 256
        assert cost[price].startswith(
            f"About {interpreter.number(per_token * 1e6, 2)} per million output tokens with 512 tokens in"
        )
        assert f"a million input tokens cost {interpreter.number(price / 3600 * each_in * 1e6, 3)}" in cost[price]


def test_a_price_of_far_shorter_prompts_is_not_taken():
    """With ten users the record has one load alone, of 128 tokens in; where the work is open that load is the price's."""
    answers = {"device": "datacentre", "users": "ten", "price_per_hour": 3}
    row = interpreter.figures(DATA, answers)["vllm"]
    (chat, *_), (any_work, *_) = told(work="chat", **answers)["entries"], told(**answers)["entries"]

    assert chat["cost"] == "No price follows from that record: its prompts have 128 tokens, and this work has 512."
    assert any_work["cost"].startswith(f"{interpreter.number(3 / 3600 / row['median'] * 1e6, 2)} per million output tokens")
    assert "Its prompts have 128 tokens and yours 512" in chat["speed"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "Llama-3.1-70B"}, "a model of 8.0 billion parameters"), ({"model": "Qwen3-30B-A3B"}, "billion parameters"),
        ({"device": "datacentres"}, "1 GPU (asked for: 8)"), ({"device": "consumer"}, "a data-centre GPU"),
    ],
)  # fmt: skip
def test_no_price_and_no_limit_follow_from_a_record_of_another_size_or_number_of_gpus(changed, said):
    """It is said instead, with what differs; of a record of the same size both follow."""
    answers = {"work": "chat", "device": "datacentre", "users": "hundred", "model": "Llama-3.1-8B", "limits": "tight"}
    same = told(**answers, price_per_hour=24)["entries"][0]
    other = told(**{**answers, **changed}, price_per_hour=24)["entries"][0]
    unasked = told(**{**answers, **changed, "limits": "none"})["entries"][0]

    assert "over your 200 ms" in str(same["against"]) and "per million output tokens" in same["cost"]
    assert "over your" not in str(other["against"]) and "per million" not in other["cost"]
    assert "No price follows" in other["cost"] and said in other["cost"]
    assert unasked["cost"] == ""


def price_of(price: float) -> dict:
    """As an answer; none for 0."""
    return {"price_per_hour": price} if price else {}


def test_no_speed_is_said_where_none_is_near():
    """Embeddings, an AMD GPU, a model that does not fit."""
    assert "no speed is said" in told(work="embeddings", device="datacentre", users="ten")["entries"][0]["speed"]
    assert "no speed is said" in told(work="chat", device="amd", users="ten")["entries"][0]["speed"]
    spilled = told(work="chat", device="consumer", users="one", model="DeepSeek-V3", price_per_hour=1)["entries"][0]
    assert "no speed is said" in spilled["speed"] and spilled["cost"] == ""


# --- commands -------------------------------------------------------------------------------------


def every_command(name: str) -> list[str]:
    """What a framework is started with, over works, devices, sizes and lengths; each once."""
    found = {}
    works = [one["key"] for one in interpreter.question(DATA, "work")["options"]]
    for work, device, model in itertools.product(
        works, ("none", "consumer", "datacentre", "datacentres", "machines"), ("Llama-3.1-8B", "Llama-3.1-70B", "DeepSeek-V3")
    ):
        found |= dict.fromkeys(_commands(name, {"work": work, "device": device, "model": model, "users": "hundred"}))
    small = {"work": "chat", "device": "consumer", "model": "Llama-3.1-8B", "users": "one", "memory_gib": 16, "context": "128k"}
    return list(found | dict.fromkeys(_commands(name, small)))


def _commands(name: str, answers: dict) -> list[str]:
    """What a framework is started with for ``answers``."""
    complete = interpreter.with_fit(DATA, answers)
    given = interpreter.asked(DATA, complete)
    place = given["place"]
    fitted = interpreter.fit(DATA, given, interpreter.types(DATA, name, place), interpreter.caches(DATA, name, place))
    return interpreter.commands(DATA, complete, name, given, fitted)


@over(lambda: {name: {"name": name} for name in DATA["frameworks"]}, "name")
def test_a_command_is_whole_and_listens_here(name):
    """Nothing is left to fill in, and the address is this machine's own."""
    for command in every_command(name):
        assert "{" not in command
        assert "--host 127.0.0.1" in command


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_engines_own_parser_takes_every_command(engine):
    """The installed package parses each, with what was meant."""
    wanted = every_command(engine)
    took = kernels.ask(engine, "helpers.lessons.scaling.launch", engine, given=json.dumps(wanted))

    assert len(took) == len(wanted)
    several = "tensor_parallel_size" if engine == "vllm" else "tp_size"
    assert {one.get(several) for one in took} >= {8}
    assert any(one.get("quantization") == "fp8" for one in took)
    assert any(str(one.get("kv_cache_dtype")).startswith("fp8") for one in took)


@pytest.mark.engine
def test_llama_cpps_own_program_has_every_option():
    """By its help."""
    from helpers.servers import llama_cpp

    if not llama_cpp.binaries():
        pytest.skip("llama-server was not compiled here: the wheel has no command line")
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", llama_cpp._said("--help")))
    used = {word for command in every_command("llama-cpp") for word in shlex.split(command) if word.startswith("--")}

    assert used - known == set()


@pytest.mark.engine
def test_transformers_own_program_has_every_option():
    """By the signature of its `serve`."""
    used = {word for command in every_command("transformers") for word in command.split() if word.startswith("--")}
    code = (
        "import inspect, json; from transformers.cli.serve import Serve; "
        "print(json.dumps(list(inspect.signature(Serve.__init__).parameters)))"
    )
    known = {f"--{name.replace('_', '-')}" for name in kernels.ask_code("transformers", code)}

    assert used - known == set()


def test_tensorrt_llms_options_are_those_of_its_sources():
    """It is not installed: every option is one that was read there."""
    lines = every_command("tensorrt-llm")
    used = {word for line in lines for word in line.partition("trtllm-serve")[2].split() if word.startswith("--")}

    assert used <= set(commands.TENSORRT_LLM)
    assert set(launch.TENSORRT_LLM) <= set(commands.TENSORRT_LLM)


def test_the_bench_takes_the_line_that_measures():
    """Its own parser, over works and limits."""
    for work, limits in itertools.product(("chat", "batch", "agent", "shared", "vision"), ("none", "relaxed", "tight")):
        line = shlex.split(told(work=work, limits=limits, model="Llama-3.1-8B")["measure"])
        options = bench._arguments(line[3:])

        assert line[:3] == ["python", "-m", "helpers.bench"]
        assert ask.plan(options).users and (ask.limits("--slo", options.slo) or limits == "none" or work == "batch")


def test_text_that_must_stay_stays():
    """No telemetry, and no network for a hub."""
    found = {
        one["name"]: one["environment"] for one in told(work="chat", device="datacentre", users="ten", private="ours")["entries"]
    }

    assert {"VLLM_NO_USAGE_STATS=1", "HF_HUB_OFFLINE=1"} <= set(found["vllm"])


@pytest.mark.engine
def test_what_was_read_in_a_package_is_there():
    """The file that a reason names, with the name in it."""
    for rule in DATA["rules"]:
        for name, (file, word) in rule.get("package", {}).items():
            code = (
                "import json, sys, importlib.util as u; from pathlib import Path; file, word = sys.argv[1:]; "
                "root = Path(u.find_spec(file.partition('/')[0]).origin).parent.parent; "
                "print(json.dumps(word in (root / file).read_text()))"
            )
            assert kernels.ask_code(name, code, file, word), (name, file, word)


def test_a_model_quantized_before_is_named_so():
    """Where an engine does not quantize while it loads, the command asks for another checkpoint, and the answer says it."""
    found = choose.shortlist(work="chat", device="consumer", users="one", model="Qwen3-30B-A3B")
    lines = {one["name"]: one for one in found.told["entries"]}

    assert "vllm serve Qwen/Qwen3-30B-A3B-AWQ" in lines["vllm"]["commands"][0]
    assert any("here called Qwen/Qwen3-30B-A3B-AWQ" in sentence for sentence in lines["vllm"]["fit"])
    assert "AWQ" not in lines["llama-cpp"]["commands"][0]


# --- answers that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"devise": "none"}, "no question is called 'devise': did you mean 'device'?"),
        ({"device": "nome"}, "device='nome' is no answer to 'What does it run on?': did you mean 'none'?"),
        ({"users": "forty-two"}, "users='forty-two' is no answer to 'How many users ask at the same time?': choose one of "),
        ({"gpus": 2.5}, "gpus=2.5: give a whole number from 1 to 64"),
        ({"price_per_hour": "free"}, "price_per_hour='free': give a number from 0.001 to 100000"),
        ({"model": "no-such-model"}, "no model is called 'no-such-model': choose one of "),
    ],
    ids=["question", "misspelt", "unknown", "GPUs", "price", "model"],
)
def test_an_answer_that_does_not_exist(answers, message):
    """The thing and the nearest, or what there is, in one line."""
    with pytest.raises(choose.DecisionError) as caught:
        choose.shortlist(**answers)

    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@over(lambda: {one["say"]: {"one": one} for one in DATA["contradictions"]}, "one")
def test_answers_that_exclude_each_other(one):
    """A clear word, and the answer without the one that goes."""
    answers = {key: options[0] for key, options in one["when"].items()} | {
        key: most + 1 for key, most in one.get("above", {}).items()
    }
    found = told(**answers)
    without = told(**{key: value for key, value in answers.items() if key != one["drop"]})

    assert one["say"] in found["said"] and one["drop"] not in found["answers"]
    assert found["groups"] == without["groups"]


def test_an_answer_cannot_be_changed():
    """It is frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        choose.shortlist(work="chat").groups = ()


# --- addresses ------------------------------------------------------------------------------------


def test_an_address_leads_back():
    """Every answer, numbers included."""
    answers = {
        "work": "chat", "model": "Llama-3.1-8B", "users": "ten", "device": "consumer", "memory_gib": 24.5, "price_per_hour": 0.4,
    }  # fmt: skip

    assert interpreter.read(DATA, interpreter.address(DATA, answers)) == (answers, [])


@pytest.mark.parametrize(
    ("address", "taken", "words"),
    [
        ("work=chatt", {"work": "chat"}, "taken as “chat”"),
        ("divice=none", {"device": "none"}, "taken as “device”"),
        ("users=forty-two", {}, "left open"),
        ("colour=blue", {}, "is no question here"),
        ("gpus=0.5", {}, "left open"),
        ("", {}, ""),
    ],
)
def test_a_broken_address_is_mended_or_said(address, taken, words):
    """The nearest is taken where it is near, else the question stays open; both are said."""
    answers, said = interpreter.read(DATA, address)

    assert answers == taken
    assert words in " ".join(said) and bool(said) == bool(words)
    assert choose.from_address(f"decision.html#{address}").told["said"][: len(said)] == said


# --- the rules as data ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rule: rule.update({"for": ["tgi"]}), "choose.toml: rule 1 names 'tgi', which is not a framework"),
        (lambda rule: rule.update(when={"device": ["gpu"]}), "choose.toml: rule 1 names 'gpu', which is not an answer to device"),
        (lambda rule: rule.update(effect="points"), "choose.toml: rule 1 names 'points', which is not an effect"),
        (lambda rule: rule.update(claims=["C999"]), "choose.toml: rule 1 names 'C999', which is not a claim"),
        (lambda rule: rule.update(claims=[]), "choose.toml: rule 1 rests on nothing"),
    ],
    ids=["framework", "answer", "effect", "claim", "nothing"],
)
def test_a_broken_rule_is_refused(change, message):
    """The rule, what is wrong with it, and what is allowed there."""
    data = copy.deepcopy(DATA)
    change(data["rules"][0])
    with pytest.raises(choose.DecisionError) as caught:
        choose.checked(data)

    assert str(caught.value).startswith(message)


def test_no_reason_rests_on_a_claim_that_could_not_be_checked():
    """Its verdict is settled."""
    cited = {claim for rule in DATA["rules"] for claim in rule.get("claims", [])}

    assert [name for name in sorted(cited) if DATA["facts"]["claims"][name]["verdict"] == "cannot be checked"] == []


def test_every_rule_can_hold():
    """Somebody's answers make it matter: no rule is there for nobody."""
    hit = set()
    works, devices = ([one["key"] for one in interpreter.question(DATA, key)["options"]] for key in ("work", "device"))
    rest = [
        {"users": users, "vendor": vendor, "operator": operator, "private": private}
        for users, vendor, operator, private in zip(
            ("one", "hundred", "ten", "hundreds"), ("no", "measure", "yes", "measure"), ("me", "team", "me", "team"),
            ("device", "ours", "rented", "ours"), strict=True,
        )
    ]  # fmt: skip
    for work, device, more, model in itertools.product(works, devices, rest, ("Llama-3.1-8B", "Llama-3.1-70B", "Llama-3.1-405B")):
        answers = interpreter.with_fit(DATA, {"work": work, "device": device, "model": model, **more})
        hit |= {i for i, rule in enumerate(DATA["rules"]) if interpreter.matches(rule, answers)}
    for device in ("none", "consumer"):
        long = {"work": "chat", "device": device, "model": "Llama-3.1-8B", "memory_gib": 16, "context": "128k"}
        answers = interpreter.with_fit(DATA, long)
        hit |= {i for i, rule in enumerate(DATA["rules"]) if interpreter.matches(rule, answers)}

    assert [DATA["rules"][i]["because"] for i in range(len(DATA["rules"])) if i not in hit] == []


def test_what_a_probe_excludes_is_what_the_record_says():
    """Tools: who ignores them without a word is out for an agent, and nobody else."""
    verdicts = DATA["facts"]["probes"]["tool calls"]
    out = {one["name"] for one in told(work="agent", device="datacentre")["out"]}

    assert out == {name for name, verdict in verdicts.items() if verdict in ("ignores silently", "refuses clearly", "fails")}


def test_the_picture_names_those_who_stand_first():
    """Each of its steps for an answer that leads there, and most of the combinations that it counts."""
    equal, of = drawing.agreement(DATA)

    for step in DATA["picture"]:
        assert drawing.short(DATA, step["answers"]) == step["take"]
        assert sorted(interpreter.shortlist(DATA, step["answers"])[0]) == sorted(step["take"])
    assert equal / of > 0.85


# --- the widget -----------------------------------------------------------------------------------


def test_the_widget_says_what_the_shortlist_says():
    """With nothing answered, and with each answer after the other."""
    import html

    *boxes, shown = choose.widget().children
    before = html.unescape(shown.value)
    for box, key in zip(boxes, keys(), strict=True):
        box.value = {"work": "chat", "users": "ten", "device": "consumer"}.get(key)

    assert str(choose.shortlist()) in before
    assert str(choose.shortlist(work="chat", users="ten", device="consumer")) in html.unescape(shown.value)


def keys() -> list[str]:
    """The questions in their order."""
    return [one["key"] for one in DATA["questions"]]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_says_the_shortlist(capsys):
    """And without an answer, the questions."""
    assert choose.main(["work=chat", "device=none", "users=one"]) == 0
    assert "llama.cpp" in capsys.readouterr().out
    assert choose.main([]) == 0
    assert capsys.readouterr().out.startswith("work=chat|batch|")
    assert choose.main(["work"]) == 2
    assert capsys.readouterr().err == "'work' is no answer: write question=answer, such as users=ten\n"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("SmolLM2-135M", ""),
        ("Llama-3.1-8B", "Yours has 60 times the parameters at work on a token: expect a fraction of this."),
    ],
)  # fmt: skip
def test_a_record_of_another_size_says_so(model, said):
    """A small model's speed is no forecast for one that reads sixty times the bytes."""
    (first, *_) = told(work="chat", device="none", users="one", memory_gib=64, model=model)["entries"]

    assert said in first["speed"] and ("parameters at work" in first["speed"]) == bool(said)


def test_a_chat_gets_a_model_that_has_a_chat_template():
    """Base models have none: vLLM refuses their chats."""
    for model in ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"):
        (first, *_) = choose.shortlist(model, work="chat", device="datacentre", users="hundred").told["entries"]

        assert "meta-llama/Llama-3.1-8B-Instruct " in first["commands"][0]


def test_engines_that_page_are_given_the_users_and_llama_cpp_its_slots():
    """Ten agents on 24 GiB: vLLM may take all while they are short; llama.cpp keeps room for each of its slots."""
    found = told(work="agent", device="consumer", users="ten", model="Qwen3-8B", context="32k", memory_gib=24)
    lines = {one["name"]: one["commands"][0] for one in found["entries"]}

    assert "--max-num-seqs 10" in lines["vllm"] and "--max-running-requests 10" in lines["sglang"]
    assert "while all requests are that long" in " ".join(found["entries"][0]["fit"])
    assert "As 8 bits (FP8) " in " ".join(found["entries"][0]["fit"])
    assert "--reasoning-parser qwen3" in lines["vllm"] and "--tool-call-parser hermes" in lines["vllm"]


def test_the_servers_length_holds_what_is_measured():
    """The text of 8,192 tokens and its answer need more than the usual 4,096, also where somebody answered fewer."""
    for context in ({}, {"context": "1k"}):
        found = told(work="shared", device="datacentre", users="hundred", model="Llama-3.1-8B", **context)
        assert "--max-model-len 32768" in found["entries"][0]["commands"][0] and "--input-tokens 8192" in found["measure"]
        assert ("This work sends 8,192 tokens and more" in " ".join(found["said"])) == bool(context)
        assert any("is kept once: with 8,192 tokens of it" in line for line in found["entries"][0]["fit"])


def test_a_cache_that_is_copied_holds_fewer():
    """DeepSeek-V3 has one latent vector for each token, which each of eight GPUs keeps; on 16 the attention is spread."""
    answers = {"work": "agent", "users": "hundred", "model": "DeepSeek-V3"}
    one, two = told(device="datacentres", gpus=8, memory_gib=141, context="32k", **answers), told(device="machines", **answers)
    layout, sheet = parallelism.Layout(8), DATA["facts"]["models"]["DeepSeek-V3"]
    known = parallelism.share("DeepSeek-V3", layout, "fp8")
    (said,) = (line for line in one["entries"][0]["fit"] if "room for" in line)
    holds = int(re.search(r"room for ([\d,]+) at full", said)[1].replace(",", ""))

    assert sheet["kv_heads"] == 1 and known.kv_copies == 8
    assert holds == pytest.approx(known.pool_tokens(141 * 2**30, DATA["usable"]) / 32768, rel=0.15)
    assert "keeps each token 8 times" in " ".join(one["entries"][0]["fit"])
    assert "--tool-call-parser deepseek_v3" in one["entries"][0]["commands"][0]
    assert "keeps each token" not in " ".join(two["entries"][0]["fit"])
    dense = told(device="machines", work="chat", users="hundred", model="Llama-3.1-405B")  # TP 8 in each, and its 8 KV heads
    assert "keeps each token" not in " ".join(dense["entries"][0]["fit"])


def test_a_record_of_a_far_smaller_model_orders_nobody():
    """The CPU's is of 135 million parameters: with ten users of an 8B it is shown, and llama.cpp stays beside vLLM."""
    small, large = (told(work="chat", device="none", users="ten", model=model) for model in ("SmolLM2-135M", "Llama-3.1-8B"))

    assert small["groups"][0] == ["vllm"]
    assert {"vllm", "llama-cpp"} <= set(large["groups"][0])
    assert "its speeds order nobody here" in " ".join(large["said"]) and "order nobody" not in " ".join(small["said"])


def test_a_price_is_of_the_memory_that_was_asked_for():
    """The newest record is of a GPU with 141 GiB: with 80 no price follows, and where it is open the machine is named."""
    answers = {"work": "chat", "device": "datacentre", "users": "hundred", "model": "Llama-3.1-8B", "price_per_hour": 3}
    (other, *_), (open_, *_) = told(memory_gib=80, **answers)["entries"], told(**answers)["entries"]

    assert "a GPU of 141 GiB (asked for: 80)" in other["cost"] and open_["cost"].startswith("About ")


def test_macos_keeps_memory_for_itself():
    """Two thirds of it are the GPU's by default."""
    (first, *_) = told(work="chat", device="apple", users="one", model="Llama-3.1-8B", memory_gib=48)["entries"]

    assert "32.2 GiB are usable" in first["fit"][0]


def test_embedding_and_head_stay_in_sixteen_bits():
    """FP8 of an 8B: 8.5 GiB, as its pool on an H200 showed, and not 7.5; a GGUF has all of it in its type."""
    known = {**interpreter.asked(DATA, {"model": "Llama-3.1-8B", "device": "datacentre"}), "gguf": False}

    assert interpreter.model_bytes(DATA, known, "fp8") / sizes.GIB == pytest.approx(8.5, abs=0.1)
    assert interpreter.model_bytes(DATA, {**known, "gguf": True}, "fp8") / sizes.GIB == pytest.approx(7.5, abs=0.1)
    tiny = {**known, "sheet": interpreter.sheet(DATA, "0.01B")}  # smaller than the nearest one's embedding
    assert interpreter.model_bytes(DATA, tiny, "fp8") == 2 * 10_000_000
