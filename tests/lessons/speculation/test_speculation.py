"""Speculative decoding: its formula, counts from engines, drafts that can and cannot serve, and servers that draft."""

import json
import random
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest

from helpers import paths
from helpers.lessons.speculation import drafts, speculative
from helpers.lessons.speculation.drafts import DraftError
from helpers.lessons.speculation.speculative import Counts
from helpers.servers import engines, guard, metrics, serving
from helpers.weights import files, models

PAGE = """# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 9.0
vllm:spec_decode_num_drafts_created{engine="0",model_name="m"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 36.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 32.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 9.0
vllm:generation_tokens_total{engine="0",model_name="m"} 48.0
"""


def tiny(folder: Path, *, layers: int = 3, hidden: int = 4, vocabulary: dict | None = None, rows: int | None = None) -> Path:
    """A whole model folder of a few values, seeded."""
    vocabulary = vocabulary or {"a": 0, "b": 1, "c": 2}
    draw, header, content = np.random.default_rng(0), {}, b""
    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.weight" for i in range(layers)), "model.norm.weight"]
    for name in names:
        values = draw.normal(size=(len(vocabulary), hidden)).astype(np.float32).tobytes()
        shape, span = [len(vocabulary), hidden], [len(content), len(content) + len(values)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": span}
        content += values
    folder.mkdir()
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + content)
    config = {"num_hidden_layers": layers, "vocab_size": rows or len(vocabulary), "layer_types": ["full_attention"] * layers}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return folder


def tensors(folder: Path) -> dict[str, bytes]:
    """Every tensor's stored bytes, by name."""
    data = (folder / "model.safetensors").read_bytes()
    head = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + head])
    spans = {name: entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"}
    return {name: data[8 + head + start : 8 + head + end] for name, (start, end) in spans.items()}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return paths.cache_dir()


def refusal(*arguments, **named) -> str:
    """The one line with which ``check_draft`` refuses."""
    with pytest.raises(DraftError) as caught:
        drafts.check_draft(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("alpha", "draft_tokens"), [(0.0, 4), (0.3, 4), (0.8, 4), (0.95, 8), (1.0, 4)])
def test_expected_tokens_is_what_a_simulation_gives(alpha, draft_tokens):
    """Draft, accept until the first rejection, add the target's own token: 20,000 times."""
    draw, given = random.Random(0), 0
    for _ in range(20_000):
        accepted = 0
        while accepted < draft_tokens and draw.random() < alpha:
            accepted += 1
        given += accepted + 1

    assert given / 20_000 == pytest.approx(speculative.expected_tokens(alpha, draft_tokens), rel=0.01)


def test_speedup_is_the_theorem_of_the_paper():
    """Theorem 3.8: (1 - a^(g+1)) / ((1 - a)(g c + 1)), with a = 0.8, g = 5, c = 0.05."""

    assert speculative.speedup(0.8, 5, 0.05) == pytest.approx((1 - 0.8**6) / (0.2 * 1.25))
    assert speculative.speedup(0.8, 5, 0.05, verify=2) == pytest.approx((1 - 0.8**6) / (0.2 * 2.25))


def test_alpha_is_found_again_from_what_it_gives():
    """The inverse of expected_tokens, from end to end."""
    for alpha in (0.0, 0.1, 0.5, 0.9, 1.0):
        accepted = speculative.expected_tokens(alpha, 4) - 1
        assert speculative.alpha_from(accepted, 4) == pytest.approx(alpha, abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: speculative.expected_tokens(1.2, 4),
        lambda: speculative.expected_tokens(0.5, -1),
        lambda: speculative.speedup(0.5, 4, cost=-1),
        lambda: speculative.speedup(0.5, 4, verify=0),
        lambda: speculative.alpha_from(5, 4),
        lambda: speculative.alpha_from(0, 0),
    ],
)
def test_numbers_that_cannot_be_are_refused_in_one_line(wrong):
    """Shares above 1, negative times, more accepted than drafted."""
    with pytest.raises(DraftError) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_counts_give_acceptance_and_tokens_per_step():
    """Of 9 tokens 5 were accepted, so 4 steps gave one of their own each."""
    counts = Counts(tokens=9, drafted=10, accepted=5, drafts=3)

    assert (counts.steps, counts.acceptance, counts.tokens_per_step) == (4, 0.5, 2.25)


def test_nothing_drafted_has_no_acceptance():
    """None, and not 0: there was nothing to accept."""

    assert Counts(tokens=5, drafted=0, accepted=0).acceptance is None
    assert Counts(tokens=0, drafted=0, accepted=0).tokens_per_step is None


def test_counters_are_subtracted_and_added():
    """Before and after; drafts stay unknown where one side does not say them."""
    before, after = Counts(4, 4, 2, 1), Counts(10, 8, 6, 2)

    assert after - before == Counts(6, 4, 4, 1)
    assert (after - before) + before == after
    assert (after - replace(before, drafts=None)).drafts is None


def test_prediction_with_a_draft_in_every_step_is_the_formula():
    """With the acceptance of one alpha, counts and theorem say the same."""
    alpha, draft_tokens, steps = 0.5, 2, 1000
    accepted = round(steps * (speculative.expected_tokens(alpha, draft_tokens) - 1))
    counts = Counts(steps + accepted, steps * draft_tokens, accepted, steps)

    assert counts.predicted(draft_tokens, 0.3, 1.2) == pytest.approx(speculative.speedup(alpha, draft_tokens, 0.3, 1.2))


def test_prediction_charges_only_the_steps_that_had_a_draft():
    """Two of four steps verified at twice the cost: 9 tokens in 6 plain steps; unknown drafts give no prediction."""
    counts = Counts(tokens=9, drafted=8, accepted=5, drafts=2)

    assert counts.predicted(4, verify=2) == pytest.approx(9 / 6)
    assert replace(counts, drafts=None).predicted(4) is None


def test_accepted_tokens_that_were_cut_off_do_not_count():
    """24 tokens came in 8 steps, so 16 of the 20 called accepted are in the answer."""
    counts = Counts(tokens=24, drafted=20, accepted=20, drafts=5).in_steps(8)

    assert (counts.accepted, counts.tokens_per_step) == (16, 3.0)


def test_steps_from_what_each_call_computed_and_the_cache_held():
    """A prompt of 72 with 2 drafted behind it, then 4 drafted, none, 4 drafted: 1, 2, 0 and 2 were kept, 9 tokens came."""
    steps = speculative.steps_of([(74, 0), (5, 73), (1, 76), (5, 77)], 72, 9)

    assert steps == [(2, 1), (4, 2), (0, 0), (4, 2)]
    assert speculative.from_steps(steps) == Counts(tokens=9, drafted=10, accepted=5, drafts=3)


def test_counts_from_a_reply_of_llama_cpp():
    """The reply leaves the two numbers out where nothing was drafted."""
    timings = {"predicted_n": 48, "draft_n": 36, "draft_n_accepted": 32}

    assert speculative.from_llama_cpp(timings) == Counts(48, 36, 32)
    assert speculative.from_llama_cpp({"predicted_n": 48}) == Counts(48, 0, 0)


def test_counts_from_vllm_as_text_and_as_objects():
    """A server's page and the list inside the process give the same."""
    named = {"spec_decode_num_drafts": 9, "spec_decode_num_draft_tokens": 36, "spec_decode_num_accepted_tokens": 32}
    inside = [SimpleNamespace(name=f"vllm:{name}", value=value) for name, value in {**named, "generation_tokens": 48}.items()]
    inside.append(SimpleNamespace(name="vllm:spec_decode_num_accepted_tokens_per_pos", values=[9, 8, 8, 7]))

    assert speculative.from_vllm(PAGE) == speculative.from_vllm(inside) == Counts(48, 36, 32, 9)


def test_vllm_without_drafts_is_told_from_one_that_accepted_none():
    """It has no such counters: no 0 is made up."""
    with pytest.raises(DraftError, match="^vLLM counts no drafts: start it with a speculative_config"):
        speculative.from_vllm('vllm:generation_tokens_total{engine="0"} 48.0\n')


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        ([1.3, 1.5, 1.2], "faster"),
        ([0.7, 0.8], "slower"),
        ([0.9, 1.3], "no clear difference"),
        ([1.05, 1.08], "no clear difference"),
        ([None], "not measured"),
        ([], "not measured"),
    ],
)
def test_nothing_is_called_faster_that_was_not(speedups, expected):
    """Every repeat must say so, and by more than a tenth."""

    assert speculative.word(speedups) == expected


def test_ways_are_called_in_turns_and_the_order_turns_round():
    """Three turns of two ways."""
    called = []
    times = speculative.in_turns({"plain": lambda: called.append("plain"), "other": lambda: called.append("other")})

    assert called == ["plain", "other", "other", "plain", "plain", "other"]
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_a_gain_is_taken_turn_by_turn_and_told_with_its_spread():
    """Half the time is twice as fast."""
    gains = speculative.gains({"plain": [2.0, 4.0, 3.0], "lookup": [1.0, 2.5, 1.5]})

    assert gains == [2.0, 1.6, 2.0]
    assert speculative.said(gains) == "2.00 (1.60 to 2.00), faster"


def test_copying_tasks_differ():
    """Sixteen users ask for sixteen different copies."""

    assert len({speculative.copying(number) for number in range(16)}) == 16


def test_a_draft_of_the_same_vocabulary_is_good(tmp_path):
    """Fewer layers, same tokens: nothing is raised."""
    drafts.check_draft(tiny(tmp_path / "target", layers=3), tiny(tmp_path / "draft", layers=1))


def test_a_draft_with_a_vocabulary_of_another_size(tmp_path):
    """Both sizes are said."""
    draft = tiny(tmp_path / "draft", vocabulary={"a": 0, "b": 1})
    said = refusal(tiny(tmp_path / "target"), draft)

    assert said == "draft cannot draft: its vocabulary has 2 entries, that of target 3; give a draft of the same family"


def test_a_draft_with_other_tokens(tmp_path):
    """As many entries, two of them exchanged: token ids would mean other words."""
    draft = tiny(tmp_path / "draft", vocabulary={"a": 0, "c": 1, "b": 2})
    said = refusal(tiny(tmp_path / "target"), draft)

    assert said.startswith("draft cannot draft: token 1 is 'c' in its vocabulary and 'b' in that of target;")


def test_a_draft_whose_embedding_has_other_rows(tmp_path):
    """The same tokenizer over a padded embedding: engines refuse it too, later."""
    said = refusal(tiny(tmp_path / "target"), tiny(tmp_path / "draft", rows=8))

    assert said.startswith("draft cannot draft: its vocabulary has 8 entries, that of target 3")


def test_a_draft_larger_than_its_target(tmp_path):
    """Exchanged by mistake; both sizes are said."""
    said = refusal(tiny(tmp_path / "target", layers=1), tiny(tmp_path / "draft", layers=3, hidden=100_000))

    assert said == (
        "draft should not draft: it has 1.5 million parameters, more than the 0.0 million of target; "
        "exchange the two, or give a smaller draft"
    )


def test_a_draft_that_is_not_there_or_not_whole(tmp_path):
    """The file's own error, in one line."""
    target = tiny(tmp_path / "target")
    for draft in (tmp_path / "absent", tmp_path / "absent.gguf"):
        with pytest.raises(files.ModelError, match="absent"):
            drafts.check_draft(target, draft)


def test_the_first_layers_are_kept_byte_for_byte(tmp_path, cache):
    """All other tensors too; the config says how many layers there are now."""
    source = tiny(tmp_path / "model", layers=3)
    made = drafts.truncated_draft(2, models.resolve(str(source)))
    kept = {name: value for name, value in tensors(source).items() if ".layers.2." not in name}
    config = json.loads((made / "config.json").read_text())

    assert tensors(made) == kept and made.parent == cache
    assert (config["num_hidden_layers"], config["layer_types"]) == (2, ["full_attention"] * 2)
    drafts.check_draft(source, made)


def test_a_cut_draft_is_made_once_and_its_name_changes_with_its_source(tmp_path, cache):
    """Nothing half made is left beside it."""
    model = models.resolve(str(tiny(tmp_path / "model")))
    first, again = drafts.truncated_draft(1, model), drafts.truncated_draft(1, model)
    (model.path / "config.json").write_text((model.path / "config.json").read_text() + " ")
    changed = drafts.truncated_draft(1, model)

    assert first == again != changed
    assert sorted(cache.iterdir()) == sorted([first, changed])


@pytest.mark.parametrize("layers", [0, 3, 99])
def test_a_draft_has_fewer_layers_than_its_target(tmp_path, cache, layers):
    """And at least one."""
    with pytest.raises(DraftError, match=f"^layers={layers}: model has 3; give 1 to 2$"):
        drafts.truncated_draft(layers, models.resolve(str(tiny(tmp_path / "model"))))


def test_a_model_without_numbered_layers_is_not_cut(tmp_path, cache):
    """Nothing is left in the cache."""
    source = tiny(tmp_path / "model")
    data = (source / "model.safetensors").read_bytes().replace(b"model.layers", b"model.blocks")
    (source / "model.safetensors").write_bytes(data)
    with pytest.raises(files.ModelError, match="^model has no tensors named as Llama's layers are"):
        drafts.truncated_draft(1, models.resolve(str(source)))

    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("sglang", 4),
            "SGLang's server is not set up for drafts here: choose one of vllm, llama-cpp-q4_0, llama-cpp, llama-cpp-bf16",
        ),
        (("vllm", 0), "draft_tokens=0, ngram=3: both must be at least 1"),
    ],
)
def test_options_that_cannot_be(arguments, message):
    """Before anything starts."""
    with pytest.raises(DraftError, match=f"^{message}$"):
        speculative.arguments(*arguments)


@pytest.mark.engine
def test_a_bad_draft_starts_no_engine(tmp_path):
    """Another vocabulary is said while the options are made: no process, no log."""
    before = psutil.Process().children()
    with pytest.raises(DraftError, match="cannot draft: its vocabulary has 3 entries, that of "):
        speculative.arguments("vllm", 4, draft=tiny(tmp_path / "other"))

    assert psutil.Process().children() == before


@pytest.mark.engine
def test_a_draft_that_only_the_engine_can_refuse_is_one_line(tmp_path):
    """A path that is not there, past our check: the server ends, its reason is said, nothing is left."""
    extra = ("--spec-type", "draft-simple", "--spec-draft-model", str(tmp_path / "absent.gguf"))
    with pytest.raises(serving.ServerError) as caught:
        with serving.serve("llama-cpp", slots=1, context=128, extra=extra):
            pass

    said = str(caught.value)
    assert said.startswith("llama.cpp's server ended before it answered: ") and "\n" not in said
    Path(said.rpartition("; its log: ")[2]).unlink()


def ask(server: serving.Server) -> dict:
    """The reply to a copying task, greedy, from llama.cpp's own route, which says token ids."""
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60, trust_env=False) as http:
        said = {"messages": [{"role": "user", "content": speculative.copying()}]}
        prompt = http.post("/apply-template", json=said).json()["prompt"]
        body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        return http.post("/completion", json=body).json()


@pytest.mark.engine
def test_a_server_that_drafts_says_the_same_and_counts():
    """llama.cpp, with and without: token for token; the options stand in the server's arguments."""
    small = {"slots": 1, "context": 256}
    with serving.serve("llama-cpp-bf16", **small) as server:
        plain = ask(server)
    extra = speculative.arguments("llama-cpp-bf16", 4)
    with serving.serve("llama-cpp-bf16", **small, extra=extra) as server:
        drafted, told = ask(server), server.arguments
    counts = speculative.from_llama_cpp(drafted["timings"])

    assert plain["tokens"] == drafted["tokens"] and len(plain["tokens"]) == 24
    assert speculative.from_llama_cpp(plain["timings"]).drafted == 0 < counts.drafted
    assert counts.tokens_per_step > 1.2 and told[-6:] == extra


@pytest.mark.engine
def test_vllms_server_drafts_and_its_page_counts():
    """The counters begin at nothing and grow with a copying task."""
    extra = speculative.arguments("vllm", 4)
    with serving.serve("vllm", slots=2, context=256, extra=extra) as server:
        before = speculative.from_vllm(metrics.metrics_page(server))
        said = [{"role": "user", "content": speculative.copying()}]
        body = {"model": server.endpoint.model, "messages": said, "max_tokens": 24, "temperature": 0}
        answer = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60, trust_env=False)
        counts = speculative.from_vllm(metrics.metrics_page(server)) - before

    assert answer.json()["usage"]["completion_tokens"] == 24
    assert counts.tokens == 24 and 0 < counts.accepted <= counts.drafted <= 4 * counts.drafts


def test_every_engine_that_drafts_takes_a_draft_model(tmp_path):
    """The path stands in its options, and no folder of this machine in what a record would say."""
    for name in [name for name, entry in engines.ENGINES.items() if entry.drafting]:
        options = engines.get(name).drafting(engines.Drafting(4, 3, tmp_path / "draft"))
        told = [guard.without_folders(part) for part in options]

        assert str(tmp_path / "draft") in "".join(options)
        assert str(tmp_path) not in "".join(told) and "draft" in "".join(told)
        assert all(json.loads(part) for part in told if part.startswith("{"))
