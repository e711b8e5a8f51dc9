"""What the machine has to spare: measured beside real programs that use its cores."""

import subprocess
import sys
import time

import pytest

from helpers import kernels, machine


@pytest.fixture
def crowd():
    """Two busy programs for each core."""
    spin = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(spin) for _ in range(2 * machine.cores())]
    time.sleep(0.5)
    yield
    for program in programs:
        program.kill()
        program.wait()


def test_a_core_that_is_shared_is_a_slower_one(crowd):
    """With two other programs on each core, the slowest of our threads waits at least half as long as it works."""
    assert machine.slowness() >= 1.5


def test_the_word_before(crowd):
    """How much others use, and what that means."""
    word = machine.busy_word()

    assert word.startswith("other programs use ") and "its figures are those of a busy machine" in word


def test_an_idle_machine_needs_no_word(monkeypatch):
    """With a mock of its counters."""
    monkeypatch.setattr(machine, "others", lambda _: (0.1, 0.02))

    assert machine.busy_word() is None


def test_a_moment_is_not_what_a_long_run_meets(monkeypatch):
    """With a mock of the probe: the median, one outlier does not count."""
    seen = iter([1.0, 10.0, 1.2])
    monkeypatch.setattr(machine, "slowness", lambda: next(seen))

    assert machine.usual_slowness(probes=3, pause_s=0) == 1.2


@pytest.mark.parametrize(("load", "times"), [(0, 1), (1, 1.5), (2, 2), (1000, machine.MOST_SLOWNESS)])
def test_the_load_in_times(monkeypatch, load, times):
    """With mocks of the load and of two cores: what runs already is waited for, up to a limit."""
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr(machine, "cores", lambda: 2)

    assert machine.load_slowness() == times


@pytest.mark.engine
@pytest.mark.skipif(machine.has_gpu(), reason="a GPU multiplies, not the processor")
def test_where_bf16_is_fast_is_what_pytorch_says():
    """Its oneDNN asks the processor itself."""
    ask = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    said = subprocess.run([kernels.interpreter("transformers"), "-c", ask], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == str(machine.multiplies_bf16())
