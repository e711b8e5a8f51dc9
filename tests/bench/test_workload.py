"""Prompts of exact length."""

import json
import subprocess

import pytest

from helpers import kernels
from helpers.bench import workload
from helpers.weights import models

SMALL = ["<s>", "a", "Ġtime", "ĠTime", "Ġgreat", "Ġ1", "▁day", "Ġ", "Ġno-", "Ġna\u00efve"]


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return models.vocabulary()


def test_words_are_whole_lower_case_words_with_their_space():
    """Both ways of writing a leading space; no capitals, digits, signs or other letters."""

    assert workload.words(SMALL) == [(2, " time"), (4, " great"), (6, " day")]


def test_arrivals_are_random_and_the_same_for_a_seed():
    """They rise, at the rate that was asked for; a rate of nothing is refused."""
    moments = workload.arrivals(10_000, 50, seed=1)

    assert moments == workload.arrivals(10_000, 50, seed=1) != workload.arrivals(10_000, 50, seed=2)
    assert moments == sorted(moments) and moments[-1] == pytest.approx(200, rel=0.05)
    with pytest.raises(ValueError, match="^rate_per_s=0: requests arrive at a rate above 0$"):
        workload.arrivals(1, 0, seed=1)


@pytest.mark.engine
def test_the_default_model_has_thousands_of_words(vocabulary):
    """Enough to begin many prompts differently."""

    assert len(workload.words(vocabulary)) > 10_000


@pytest.mark.engine
@pytest.mark.parametrize(("count", "length"), [(1, 1), (3, 17), (400, 128)])
def test_count_and_length_are_exact(vocabulary, count, length):
    """As many prompts as asked, each of as many ids and words as asked."""
    made = workload.prompts(count, length, seed=1, vocabulary=vocabulary)

    assert len(made) == count
    assert {len(prompt.token_ids) for prompt in made} == {len(prompt.text.split()) for prompt in made} == {length}


@pytest.mark.engine
def test_text_is_what_the_ids_spell(vocabulary):
    """The entries of the ids, joined, with spaces for their marks."""
    (prompt,) = workload.prompts(1, 50, seed=3, vocabulary=vocabulary)

    assert "".join(vocabulary[token_id] for token_id in prompt.token_ids).replace("Ġ", " ") == prompt.text


@pytest.mark.engine
def test_no_two_prompts_begin_alike(vocabulary):
    """Different first tokens: a prefix cache has nothing to reuse."""
    made = workload.prompts(400, 4, seed=0, vocabulary=vocabulary)

    assert len({prompt.token_ids[0] for prompt in made}) == 400


def test_each_turn_is_the_beginning_of_the_next():
    """In words and, where the vocabulary is known, in ids; each of the length asked."""
    one, two = workload.turns((2, 5), seed=1, vocabulary=SMALL)

    assert (len(one.token_ids), len(two.token_ids)) == (2, 5) and two.token_ids[:2] == one.token_ids
    assert len(two.text.split()) == 5 and two.text.startswith(one.text + " ")
    assert [turn.token_ids for turn in workload.turns((2, 5), seed=1)] == [None, None]


@pytest.mark.engine
def test_the_seed_decides(vocabulary):
    """The same seed gives the same prompts, another one others."""
    first, again, other = (workload.prompts(5, 20, seed=seed, vocabulary=vocabulary) for seed in (7, 7, 8))

    assert first == again
    assert not set(first) & set(other)


def test_without_a_vocabulary_prompts_are_common_words():
    """No ids, and still as many words as asked and different beginnings."""
    made = workload.prompts(50, 12, seed=0)

    assert {prompt.token_ids for prompt in made} == {None}
    assert {len(prompt.text.split()) for prompt in made} == {12}
    assert len({prompt.text.split()[0] for prompt in made}) == 50


@pytest.mark.engine
def test_common_words_are_single_tokens_of_the_default_model(vocabulary):
    """What is assumed of unknown tokenizers holds for the known one; no word stands there twice."""

    assert {" " + word for word in workload.COMMON_WORDS} <= {text for _, text in workload.words(vocabulary)}
    assert len(set(workload.COMMON_WORDS)) == len(workload.COMMON_WORDS)


@pytest.mark.engine
def test_the_hash_changes_with_the_prompts_and_the_output_length(vocabulary):
    """Equal workloads have equal hashes, and only they."""
    one, same, other = (workload.prompts(2, 8, seed=seed, vocabulary=vocabulary) for seed in (1, 1, 2))

    assert workload.sha256(one, 16) == workload.sha256(same, 16)
    assert len({workload.sha256(one, 16), workload.sha256(one, 17), workload.sha256(other, 16)}) == 3


def test_the_hash_is_known():
    """What `sha256sum` says of ``[[" time day", [2, 6]], 3]``: it means the same in a year."""
    prompts = [workload.Prompt(" time day", (2, 6))]

    assert workload.sha256(prompts, 3) == "f14130da74dd2c908565b9344bfd60aa1c89eb29ae6e6c98f4fa56852ad341e9"


@pytest.mark.parametrize(
    ("count", "length", "message"),
    [
        (0, 8, "0 prompts of 8 tokens: both must be at least 1"),
        (1, 0, "1 prompts of 0 tokens: both must be at least 1"),
        (4, 8, "4 prompts, but the vocabulary has 3 words to begin with: ask for fewer requests"),
    ],
)
def test_impossible_workloads_are_refused(count, length, message):
    """Sizes below one, and more prompts than first words."""

    with pytest.raises(ValueError, match=f"^{message}$"):
        workload.prompts(count, length, seed=0, vocabulary=SMALL)


@pytest.mark.engine
def test_the_tokenizer_turns_each_text_back_into_its_ids(vocabulary):
    """Transformers' tokenizer of the default model, on 200 prompts of 64 tokens."""
    made = workload.prompts(200, 64, seed=11, vocabulary=vocabulary)
    code = (
        "import json, sys\nfrom transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(json.dumps([tokenizer(text).input_ids for text in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [kernels.interpreter("transformers"), "-c", code, str(models.weights("safetensors"))],
        input=json.dumps([prompt.text for prompt in made]), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip

    assert [tuple(ids) for ids in json.loads(done.stdout)] == [prompt.token_ids for prompt in made]
