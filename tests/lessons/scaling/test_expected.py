"""What a step takes on a measured machine: each term by hand, and costs that give back what they were fitted to."""

import pytest

from helpers.lessons.scaling import expected, parallelism
from helpers.lessons.scaling.expected import Costs, Machine
from helpers.lessons.scaling.parallelism import Layout

LLAMA = "Llama-3.1-8B"
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


def test_the_fit_gives_back_what_it_was_made_from():
    """Costs that were known, found again from the times they make."""
    costs = Costs(1.5e-3, 1.2e-5, 0.6)
    steps = {users: expected.decode_s(LLAMA, Layout(), users, 192, MACHINE, costs) for users in (1, 10, 100)}
    prompt = 2048, expected.prefill_s(LLAMA, Layout(), 2048, MACHINE, costs)

    found = expected.fit(LLAMA, steps, 192, prompt, MACHINE)

    assert (found.step_s, found.user_s, found.compute_share) == pytest.approx((1.5e-3, 1.2e-5, 0.6))
