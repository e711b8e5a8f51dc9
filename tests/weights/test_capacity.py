"""The calculator, checked by hand and against published arithmetic; and every question that cannot be answered."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from offenders import over

from helpers import machine
from helpers.servers import metrics, serving
from helpers.weights import capacity, models, shapes, sizes
from helpers.weights.sizes import GIB

H100 = {"bandwidth_bytes_per_s": 3.35e12, "flops_per_s": 989.4e12}


def llama(memory_bytes: float = 80 * GIB, **asked) -> capacity.Fit:
    """Llama-2-7B, 100 users of 128 tokens in 16 bit, all of the memory usable."""
    return capacity.ask("Llama-2-7B", memory_bytes, **{"users": 100, "context": 128, "usable": 1.0} | asked)


class TestFits:
    """Weights and KV cache against the memory."""

    def test_bytes_by_hand(self):
        """6,738,415,616 parameters of two bytes; 100 x 128 tokens of 512 KiB are 6.25 GiB."""
        answer = llama()

        assert answer.weights_bytes == 2 * 6_738_415_616
        assert (answer.kv_bytes_per_token, answer.kv_bytes) == (524_288, 6.25 * GIB)
        assert answer.needed_bytes == 2 * 6_738_415_616 + 6.25 * GIB
        assert answer.fits

    @pytest.mark.parametrize(("gigabytes", "tokens"), [(24, 16_409), (40, 44_485), (80, 114_675), (141, 221_716)])
    def test_tokens_beside_the_weights_of_a_7b_model(self, gigabytes, tokens):
        """At vLLM's 0.92 of a card: (0.92 x 24e9 - 13.48e9) / 524,288."""

        assert llama(gigabytes * 1e9, usable=0.92, context=1).pool_tokens == tokens

    def test_the_edge_is_a_byte(self):
        """What is needed fits, one byte less does not."""
        needed = llama().needed_bytes

        assert llama(needed).fits and not llama(needed - 1).fits

    @pytest.mark.parametrize("gib", [16, 24, 40, 80, 141])
    def test_the_most_users_fit_and_one_more_does_not(self, gib):
        """And the longest context, and one token more."""
        answer = llama(gib * GIB, context=512)
        most, longest = answer.most_users, answer.longest_context

        assert llama(gib * GIB, context=512, users=most).fits and not llama(gib * GIB, context=512, users=most + 1).fits
        assert llama(gib * GIB, context=longest).fits and not llama(gib * GIB, context=longest + 1).fits

    def test_no_context_is_longer_than_the_model_knows(self):
        """One user of Llama-2-7B in a TiB: 4,096 tokens."""

        assert llama(1024 * GIB, users=1).longest_context == 4096

    @pytest.mark.parametrize(("dtype", "size"), [("fp8", 1), ("q8_0", 34 / 32), ("q4_0", 18 / 32), ("float32", 4)])
    def test_types_of_weights_and_cache(self, dtype, size):
        """A GGUF block of 32 values has its scale with it: 34 or 18 bytes."""
        answer = llama(dtype=dtype, kv_dtype=dtype)

        assert answer.weights_bytes == pytest.approx(6_738_415_616 * size, abs=34)
        assert answer.kv_bytes_per_token == 262_144 * size

    @pytest.mark.engine
    def test_a_model_with_files_is_taken_as_stored(self):
        """The default model's Q4_1 file, its tensors counted."""
        answer = capacity.ask(models.resolve(), GIB)

        assert (answer.dtype, answer.weights_bytes) == ("as stored", sizes.weights_bytes("gguf"))
        assert answer.context == 8192


class TestDocument:
    """The table "KV cache (100 users)" for a 7B model: how many tokens each of them has."""

    @pytest.mark.parametrize(
        ("gigabytes", "kv_dtype", "tokens"),
        [(10, "float16", 190), (2, "float16", 38), (1.5, "float16", 28), (1, "float16", 19), (1, "q8_0", 35), (1, "q4_0", 67)],
    )
    def test_tokens_of_each_user(self, gigabytes, kv_dtype, tokens):
        """2 GB are 3,814 whole tokens of 512 KiB, 38 for each of 100 users."""
        weights = 2 * 6_738_415_616

        assert llama(weights + gigabytes * 1e9, kv_dtype=kv_dtype).longest_context == tokens


class TestWouldFit:
    """What is proposed instead fits."""

    def test_fewer_users_shorter_contexts_or_a_smaller_cache(self):
        """Llama-2-7B, 100 x 1,024 tokens: 62.6 GiB are too much for 40, with a cache in 8 bits 37.6 are not."""
        answer = llama(40 * GIB, context=1024, kv_dtype="float16")

        assert answer.would_fit == (
            f"{answer.most_users} users",
            f"{answer.longest_context} tokens for each of 100",
            answer.would_fit[2],
        )
        assert answer.would_fit[2] == "a KV cache as fp8"
        assert llama(40 * GIB, context=1024, kv_dtype="fp8").fits

    def test_weights_that_do_not_fit_alone(self):
        """12.55 GiB into 8: neither fewer users nor a smaller cache help, weights as fp8 do."""
        answer = llama(8 * GIB, users=1)

        assert (answer.most_users, answer.longest_context) == (0, 0)
        assert answer.would_fit == ("weights as fp8",)
        assert llama(8 * GIB, users=1, dtype="fp8").fits

    def test_nothing_fits(self):
        """671 billion parameters into 24 GiB."""
        answer = capacity.ask("DeepSeek-V3", 24 * GIB, context=1000)

        assert answer.would_fit == ()
        assert answer.say.endswith("what would fit: a smaller model or more memory")

    @over(
        lambda: {f"{name}, {gib} GiB": {"name": name, "gib": gib} for name in shapes.known() for gib in (2, 24, 80)},
        "name",
        "gib",
    )
    def test_a_proposed_type_fits(self, name, gib):
        """Asked again with it."""
        sheet = shapes.known()[name]
        answer = capacity.ask(name, gib * GIB, users=50, context=2048)
        for proposal in answer.would_fit[-1:]:
            parts = dict(part.split(" as ") for part in proposal.split(" and ") if " as " in part)
            asked = {"dtype": parts.get("weights", "bfloat16"), "kv_dtype": parts.get("a KV cache", "bfloat16")}

            assert not parts or capacity.ask(sheet, gib * GIB, users=50, context=2048, **asked).fits, proposal


class TestSpeed:
    """The bound that reading sets: users x bandwidth / (weights + their KV cache)."""

    def test_one_user_of_an_8b_model_on_an_h100(self):
        """3.35 TB/s over 15.01 GB and 1.07 GB: 208 tokens/s; the input embedding is only looked up."""
        answer = capacity.ask("Llama-3.1-8B", 80 * GIB, context=8192, **H100)

        assert (round(answer.tokens_per_s), answer.limited_by) == (208, "memory")

    def test_many_short_users_are_bound_by_arithmetic(self):
        """A thousand users of one token: 989.4 TFLOP/s over 15.01 GFLOP a token."""
        answer = capacity.ask("Llama-3.1-8B", 80 * GIB, users=1000, context=1, **H100)

        assert (round(answer.tokens_per_s), answer.limited_by) == (65_917, "compute")

    def test_a_smaller_cache_is_read_faster(self):
        """100 users of 4,096 tokens read 50 GiB of cache in 16 bit, half of it in 8."""
        sixteen, eight = (
            capacity.ask("Llama-3.1-8B", 80 * GIB, users=100, context=4096, kv_dtype=t, **H100) for t in ("float16", "fp8")
        )

        assert 1.5 < eight.tokens_per_s / sixteen.tokens_per_s < 2

    def test_without_a_bandwidth_there_is_no_bound(self):
        """Not 0."""

        assert (llama().tokens_per_s, llama().limited_by) == (None, None)

    def test_experts_have_no_bound_and_say_why(self):
        """A step reads only some of them."""
        answer = capacity.ask("DeepSeek-V2-Lite", 80 * GIB, context=100, **H100)

        assert answer.tokens_per_s is None and "it has experts" in answer.say


class TestLine:
    """One line for a reader."""

    def test_what_fits(self):
        """Both parts, their sum, and how far it goes."""

        assert llama(usable=0.9, **H100).say == (
            "Llama-2-7B fits: weights 12.6 GiB (bfloat16) + KV cache 6.2 GiB (100 users x 128 tokens x 512.0 KiB, bfloat16) = "
            "18.8 GiB, 72.0 GiB usable of 80.0 GiB; at most 951 users, or 1,217 tokens each; at most 16,813 tokens/s (memory)"
        )

    def test_what_does_not(self):
        """And what would."""

        assert str(llama(16 * GIB, context=1024)) == (
            "Llama-2-7B does not fit: weights 12.6 GiB (bfloat16) + KV cache 50.0 GiB (100 users x 1,024 tokens x 512.0 KiB, "
            "bfloat16) = 62.6 GiB, 16.0 GiB free; what would fit: 6 users, or 70 tokens for each of 100"
        )

    def test_json_has_the_fields_and_what_follows(self):
        """To JSON, without the model's sheet."""
        found = json.loads(json.dumps(llama().to_dict()))

        assert (found["fits"], found["users"], found["weights_bytes"]) == (True, 100, 13_476_831_232)
        assert "sheet" not in found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"users": 0}, "users=0, context=128: both must be at least 1"),
        ({"context": 0}, "users=100, context=0: both must be at least 1"),
        ({"context": 5000}, "context=5000: Llama-2-7B knows 4096 tokens; ask for 4096 or fewer"),
        ({"memory_bytes": 0}, "memory_bytes=0: must be more than 0"),
        ({"memory_bytes": float("nan")}, "memory_bytes=nan: must be more than 0"),
        ({"memory_bytes": float("inf")}, "memory_bytes=inf: give the memory that there is"),
        ({"bandwidth_bytes_per_s": -1}, "bandwidth_bytes_per_s=-1: must be more than 0"),
        ({"usable": 1.1}, "usable=1.1: a share of the memory, more than 0 and at most 1"),
        ({"dtype": "fp7"}, "no dtype is called 'fp7': choose one of float32, bfloat16, "),
        ({"kv_dtype": "q6_k"}, "no KV cache is stored as 'q6_k': choose one of float32, bfloat16, "),
    ],
)
def test_questions_that_cannot_be_answered(asked, message):
    """In one line, with what can be asked."""
    with pytest.raises(ValueError) as caught:
        llama(**asked)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "helpers.weights.capacity", *arguments], capture_output=True, text=True)


class TestCommand:
    """``python -m helpers.weights.capacity``."""

    def test_it_fits(self):
        """Exit code 0 and the line."""
        ran = command("--model", "Llama-3.1-8B", "--memory-gib", "80", "--users", "100", "--context", "4096")

        assert (ran.returncode, ran.stderr) == (0, "")
        assert (
            ran.stdout.startswith("Llama-3.1-8B fits: weights 15.0 GiB (bfloat16) + KV cache 50.0 GiB")
            and ran.stdout.count("\n") == 1
        )

    def test_it_does_not_fit(self):
        """Exit code 1, for a script."""
        ran = command("--model", "Llama-2-7B", "--memory-gib", "24", "--users", "100", "--context", "2048", "--json")

        assert ran.returncode == 1 and json.loads(ran.stdout)["fits"] is False

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "no model was named: give --model, or --list"),
            (("--users", "many"), "argument --users: invalid int value: 'many'"),
            (("--model", "nothing"), "no model is called 'nothing': choose one of SmolLM2-135M, "),
            (("--model", "Llama-2-7B", "--memory-gib", "-1"), "memory_bytes=-1073741824.0: must be more than 0"),
            (("--model", "Llama-2-7B", "--users", "0"), "users=0, context=4096: both must be at least 1"),
            (("--model", "Llama-2-7B", "--kv-dtype", "int5"), "no KV cache is stored as 'int5': choose one of"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, capsys, arguments, message):
        """Exit code 2; in this process."""
        try:
            code = capacity.main(arguments)
        except SystemExit as ended:  # argparse's own way
            code = ended.code
        out, err = capsys.readouterr()

        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(message)

    def test_an_answer_that_nobody_takes_is_one_line(self):
        """Standard output is a full disk: 1, and why."""
        asked = [sys.executable, "-m", "helpers.weights.capacity", "--model", "Llama-2-7B", "--memory-gib", "80"]
        with open("/dev/full", "w") as full:
            ran = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True)

        assert (ran.returncode, ran.stderr) == (1, "standard output could not be written (No space left on device)\n")

    def test_the_list(self):
        """Every known model, with its attention."""
        ran = command("--list")

        assert all(name in ran.stdout for name in shapes.known()) and "MLA" in ran.stdout


class TestFree:
    """The memory an engine could take now."""

    def test_on_a_cpu_it_is_the_machines(self, monkeypatch):
        """What the system calls available."""
        monkeypatch.setattr(machine, "has_gpu", lambda: False)

        assert capacity.free_bytes() > 64 * sizes.MIB

    @pytest.mark.parametrize(("said", "free"), [("80000\n 1000\n", 80_000 * sizes.MIB), ("[N/A]\n", None), ("", None)])
    def test_of_several_gpus_it_is_the_emptiest(self, monkeypatch, said, free):
        """With a mock of nvidia-smi's answers; one that does not say is not full."""
        monkeypatch.setattr(machine, "has_gpu", lambda: True)
        monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=said))

        assert capacity.free_bytes() == free


@pytest.mark.engine
def test_a_running_engine_has_the_tokens_that_the_calculator_says():
    """llama.cpp's own pool, given to the calculator as memory beside the weights, within 2 %."""
    with serving.serve("llama-cpp", slots=4, context=256) as server:
        found = metrics.pool(server)
    weights = sizes.weights_bytes("gguf")
    answer = capacity.ask(models.resolve(), weights + found.bytes, users=4, context=256, kv_dtype="float16", usable=1.0)

    assert answer.pool_tokens == pytest.approx(found.tokens, rel=0.02)
    assert (answer.fits, answer.most_users) == (True, 4)


def test_a_sheet_of_ones_own():
    """A model that nobody has made yet: twice as many layers as Llama-2-7B."""
    sheet = shapes.of("Llama-2-7B")
    deep = replace(sheet, name="deep", shape=replace(sheet.shape, layers=64))

    assert capacity.ask(deep, 80 * GIB).kv_bytes_per_token == 2**20
