"""What a step takes on a measured machine: each term by hand, and costs that give back what they were fitted to."""

from dataclasses import astuple, replace

import pytest

from helpers.lessons.scaling import expected, parallelism
from helpers.lessons.scaling.expected import Costs, Machine
from helpers.lessons.scaling.parallelism import Layout

LLAMA, MOE = "Llama-3.1-8B", "Qwen3-30B-A3B"
MACHINE = Machine(4e12, 1e15, {8192: 10e-6, 16384: 20e-6, 65536: 40e-6})


class TestAllReduce:
    """Seconds of an all-reduce of any size."""

    @pytest.mark.parametrize(("size", "seconds"), [(1, 10e-6), (8192, 10e-6), (12288, 15e-6), (65536, 40e-6), (131072, 80e-6)])
    def test_between_what_was_measured(self, size, seconds):
        """Latency below the smallest, a line between two, the largest one's rate above."""

        assert MACHINE.all_reduce(size) == pytest.approx(seconds)


class TestDecode:
    """One step."""

    def test_by_hand(self):
        """One user on one GPU: all weights but the embedding, and 192 tokens of KV cache at 128 KiB each."""
        read = 2 * (8_030_261_248 - 128256 * 4096) + 192 * 131072

        assert expected.decode_s(LLAMA, Layout(), 1, 192, MACHINE) == pytest.approx(read / 4e12)

    def test_two_gpus_wait_for_64_all_reduces(self):
        """Two of each of 32 layers, of 8 KiB for a user; half the KV cache is read on each."""
        weights = parallelism.read_bytes(LLAMA, Layout(2))

        seconds = expected.decode_s(LLAMA, Layout(2), 1, 192, MACHINE)

        assert seconds == pytest.approx((weights + 192 * 65536) / 4e12 + 64 * 10e-6)

    def test_two_stages_read_as_much_as_one_gpu_and_hand_over_once(self):
        """One batch goes through both: all weights, all of the KV cache, and 8 KiB between them."""
        alone = expected.decode_s(LLAMA, Layout(), 1, 192, MACHINE)

        assert expected.decode_s(LLAMA, Layout(pp=2), 1, 192, MACHINE) == pytest.approx(alone + 10e-6)

    def test_experts_read_their_half_wherever_they_lie(self):
        """Cut or whole, a GPU of two reads as much, and waits for as many all-reduces."""
        cut, whole = (expected.decode_s(MOE, Layout(2, ep=ep), 10, 192, MACHINE) for ep in (False, True))

        assert whole == pytest.approx(cut)

    def test_experts_between_copies_are_refused(self):
        """No all-to-all was measured."""
        for ask in (
            lambda layout: expected.decode_s(MOE, layout, 1, 192, MACHINE),
            lambda layout: expected.prefill_s(MOE, layout, 1, MACHINE),
        ):
            with pytest.raises(
                parallelism.LayoutError, match="^Qwen3-30B-A3B, DP2 x EP: no all-to-all was measured; take EP without"
            ):
                ask(Layout(dp=2, ep=True))

    def test_fp8_weights_are_half_of_the_bytes(self):
        """The KV cache is as it was."""
        kv = 192 * 131072 / 4e12
        fp8, bf16 = (
            expected.decode_s(LLAMA, Layout(), 1, 192, replace(MACHINE, dtype=name)) - kv for name in ("fp8", "bfloat16")
        )

        assert fp8 == pytest.approx(bf16 / 2)

    def test_an_engine_costs_a_step_and_each_user(self):
        """Added to the bound."""
        alone = expected.decode_s(LLAMA, Layout(), 10, 192, MACHINE)

        assert expected.decode_s(LLAMA, Layout(), 10, 192, MACHINE, Costs(1e-3, 1e-5)) == pytest.approx(alone + 1.1e-3)


class TestPrefill:
    """One prompt."""

    def test_by_hand(self):
        """Two FLOP for each parameter of the body and each token, the head once, and attention's square."""
        head = 128256 * 4096
        flops = 2 * ((8_030_261_248 - 2 * head) * 2048 + head) + 2 * 2048**2 * 4096 * 32

        assert expected.prefill_s(LLAMA, Layout(), 2048, MACHINE, Costs(compute_share=0.5)) == pytest.approx(flops / 0.5e15)

    def test_a_prompt_costs_something_however_long_it_is(self):
        """Beside the step that it is."""
        bare, paid = (expected.prefill_s(LLAMA, Layout(), 2048, MACHINE, Costs(prompt_s=p, step_s=p)) for p in (0, 1e-3))

        assert paid == pytest.approx(bare + 2e-3)


def test_the_fit_gives_back_what_it_was_made_from():
    """Costs that were known, found again from the times they make."""
    costs = Costs(1.5e-3, 1.2e-5, 0.6, 4e-3)
    steps = {users: expected.decode_s(LLAMA, Layout(), users, 192, MACHINE, costs) for users in (1, 10, 100)}
    prompts = {tokens: expected.prefill_s(LLAMA, Layout(), tokens, MACHINE, costs) for tokens in (2048, 8192)}

    found = expected.fit(LLAMA, steps, 192, prompts, MACHINE)

    assert astuple(found) == pytest.approx(astuple(costs))


def test_costs_move_to_a_model_by_its_layers():
    """80 for 32; a user's sampling and the share of the FLOP/s stay."""
    assert Costs(1e-3, 1e-5, 0.6, 4e-3).moved(LLAMA, "Llama-3.1-70B") == Costs(2.5e-3, 1e-5, 0.6, 10e-3)
