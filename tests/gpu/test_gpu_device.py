"""Is there a GPU that will do? Each no is one line: the thing, the reason, the next step. nvidia-smi is a script here."""

from __future__ import annotations

import pytest

from helpers import machine
from helpers.gpu import __main__, device, random_model
from helpers.weights import sizes

H100 = ("NVIDIA H100 80GB HBM3", "9.0", "580.159.04", "81559", "80995")


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Make an ``nvidia-smi`` that answers with the given name, capability, driver, total and free MiB."""

    def make(*answers: str) -> None:
        fields = ("name", "compute_cap", "driver_version", "memory.total", "memory.free")
        cases = "\n".join(f'  --query-gpu={field}) echo "{answer}";;' for field, answer in zip(fields, answers))
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_gpu_is_read_with_its_memory_in_bytes(nvidia_smi):
    """What nvidia-smi says in MiB is bytes here."""
    nvidia_smi(*H100)
    found = device.gpu()
    assert (found.name, found.capability, found.driver) == ("NVIDIA H100 80GB HBM3", 9.0, "580.159.04")
    assert (found.total_bytes, found.free_bytes) == (81559 * sizes.MIB, 80995 * sizes.MIB)


def test_only_the_gpus_that_a_process_may_use_are_asked(tmp_path, monkeypatch):
    """With ``CUDA_VISIBLE_DEVICES`` the first GPU is the first of those, for nvidia-smi and for NVML (mock), which counts all."""
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    assert machine.gpus("name") == ["--query-gpu=name --format=csv,noheader,nounits"]
    monkeypatch.setenv(machine.VISIBLE, "1,0")
    assert machine.gpus("name") == ["--query-gpu=name --format=csv,noheader,nounits --id=1,0"]

    class MockNvml:
        nvmlDeviceGetHandleByIndex = staticmethod(lambda number: f"GPU number {number}")
        nvmlDeviceGetHandleByUUID = staticmethod(lambda name: f"GPU named {name}")

    found = [device.gpu_handle(MockNvml, first) for first in ("", "1", "GPU-7")]
    assert found == ["GPU number 0", "GPU number 1", "GPU named GPU-7"]


def test_a_machine_without_a_gpu_says_so(no_gpu):
    """No nvidia-smi is one line with the next step."""
    with pytest.raises(device.DeviceError) as refused:
        device.gpu()
    assert str(refused.value) == (
        "no NVIDIA GPU here (there is no nvidia-smi): take a machine with one, or --device cpu to rehearse"
    )


def test_nvidia_smi_without_a_device_says_so(nvidia_smi):
    """A driver that finds no device is no GPU either."""
    nvidia_smi(*["No devices were found"] * 5)
    with pytest.raises(device.DeviceError, match="^nvidia-smi names no GPU .No devices were found.*: is the driver loaded"):
        device.gpu()


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (("Tesla V100", "7.0", "580.1", "32510", "32000"), "Tesla V100 has compute capability 7.0: 8.0 (Ampere) or newer is needed for bf16"),  # noqa: E501
        (("NVIDIA A100", "8.0", "470.57", "81559", "81000"), "NVIDIA A100 has driver 470.57: 525 or newer is needed for CUDA 12; update it"),  # noqa: E501
        (
            ("NVIDIA A10", "8.6", "580.1", "12288", "12000"),
            "12.6 GiB of weights and a KV cache do not fit NVIDIA A10: 11.7 of its 12.0 GiB are free; end other programs or take "
            "a smaller --shape",
        ),
    ],
    ids=["an old GPU", "an old driver", "too little memory"],
)  # fmt: skip
def test_a_gpu_that_will_not_do_is_refused_in_one_line(nvidia_smi, answers, line):
    """An old GPU, an old driver, too little memory: before anything starts."""
    nvidia_smi(*answers)
    with pytest.raises(device.DeviceError) as refused:
        device.check(device.gpu(), random_model.weights_bytes("Llama-2-7B"))
    assert str(refused.value) == line


def test_a_gpu_that_will_do_is_taken(nvidia_smi):
    """An H100 holds the 7B shape."""
    nvidia_smi(*H100)
    assert device.check(device.gpu(), random_model.weights_bytes("Llama-2-7B")).capability == 9.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["speed"], "no NVIDIA GPU here (there is no nvidia-smi): take a machine with one, or --device cpu to rehearse"),
        (["sped"], "no run is called 'sped': choose from speed, memory, options, today, scaling, questions, again"),
        (
            ["scaling", "--lives", "vllm, offline"],
            "no life is called 'vllm, offline': choose from machine, links, as it comes, TP2; ",
        ),
        (
            ["speed", "--engines", "vlm"],
            "no engine is called vlm: choose from vllm, sglang, llama-cpp, transformers, tensorrt-llm, machine",
        ),
        (["speed", "--shape", "Lama"], "no shape is called 'Lama': choose one of tiny, "),
        (["speed", "--users", "0"], "--users 0 --repeats 3: give numbers of at least 1"),
        (["finish", "speed"], "there is no draft of 'speed' on this machine: run it first"),
        (
            ["notebooks", "--numbers", "01,06"],
            "--numbers 06: choose from 01,02,03,04,05,07,08,09,10,11, those that run on a GPU too",
        ),
        (["kernelspecs", "/nowhere"], "/nowhere holds no prepared environments: it has no lab/site; unpack them there first"),
    ],
)
def test_a_bad_command_is_one_line_and_starts_nothing(no_gpu, capsys, arguments, line):
    """The reason on standard error, exit code 1."""
    assert __main__.main(arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith(line) and said.err.count("\n") == 1 and said.out == ""


def test_without_a_gpu_its_memory_is_not_measurable(no_gpu):
    """``None`` with a reason, never 0."""
    nvml = device.Nvml()
    assert nvml.used_bytes() is None
    assert nvml.of([1], None) == device.Use(None, "no GPU")
    with device.Watch() as watch:
        pass
    assert watch.peak_bytes is None


class _MockNvml:
    """The three calls that are made of pynvml; its process ids are the host's."""

    NVMLError = RuntimeError

    def __init__(self, used: int, processes: dict[int, int | None]):
        self.used, self.processes = used, processes

    def nvmlDeviceGetMemoryInfo(self, handle):
        return type("Info", (), {"used": self.used})

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [type("Process", (), {"pid": pid, "usedGpuMemory": used}) for pid, used in self.processes.items()]


def _nvml(mock: _MockNvml) -> device.Nvml:
    nvml = device.Nvml()
    nvml.nvml, nvml.handles = mock, [object()]
    return nvml


def test_our_processes_are_summed_where_a_mock_nvml_knows_them(no_gpu):
    """Two of three processes are ours."""
    nvml = _nvml(_MockNvml(900, {10: 100, 11: 200, 12: 400}))
    assert nvml.of([10, 11], 50) == device.Use(300, "NVML, our processes")


def test_what_a_block_took_is_the_counters_growth(no_gpu):
    """Millijoules of a mock NVML; unknown if it was not counted before or is not now."""
    nvml = _nvml(_MockNvml(900, {}))
    assert nvml.joules_since(100.0) is None  # this mock does not count
    nvml.nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 250_000
    assert nvml.joules_since(100.0) == 150 and nvml.joules_since(None) is None


@pytest.mark.parametrize("processes", [{70010: 100}, {10: None}, {}], ids=["host ids", "no figure", "none"])
def test_in_a_container_the_devices_change_is_given_and_named(no_gpu, processes):
    """Host ids match none of ours: the change since the baseline, and a word that it is that (mock NVML)."""
    found = _nvml(_MockNvml(900, processes)).of([10], 50)
    assert found.bytes == 850 and "the device's change" in found.how
