"""Joules per output token: mock counters in a folder, a mock of NVML, and a truth server that spends a known amount."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import machine
from helpers.bench import beside, energy, measure, page
from helpers.bench.__main__ import as_text, report
from helpers.bench.client import Endpoint
from helpers.bench.energy import Counter, Meter
from helpers.bench.measure import Plan
from helpers.bench.timing import Level, Sample
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

LOOPBACK = "http://127.0.0.1:8000/v1"
PLAN = Plan(users=(2,), requests=4, input_tokens=8, output_tokens=4, settle=False)
BLOCK = (Sample(0, (1,), output_tokens=6, token_source="server_usage"),) * 2


def zone(folder: Path, number: str, name: str, microjoules: int = 0, most: int = 10**12) -> Path:
    """A mock of a power zone; its counter."""
    made = folder / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    return made / "energy_uj"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch) -> None:
    """Whatever this machine has: the counters here are mocks."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)


@pytest.fixture
def spent(tmp_path) -> Level:
    """A level of a server whose mock processor takes 2 J for each request of four tokens, and comes round at 50 J."""
    counter = zone(tmp_path, "0", "package-0", most=50 * 10**6)

    def script(number: int, body: dict) -> Script:
        counter.write_text(f"{2 * 10**6 * (number + 1) % (50 * 10**6)}\n")
        return Script()

    with TruthServer(script) as mock:
        endpoint = Endpoint(mock.base_url, "m")
        meter = Meter(mock.base_url, folder=tmp_path)
        plan = replace(PLAN, requests=20)
        (level,) = measure.measure(endpoint, plan, watched=lambda name, load: meter.repeat(load))
    return replace(level, energy=meter.of(level))


def test_joules_are_those_of_the_repeats_over_their_tokens(spent):
    """40 J for 80 tokens in each of three repeats, also where the counter comes round within one."""
    found = spent.energy["processor package-0"]

    assert found["joules"] == pytest.approx([40, 40, 40])
    assert found["joules_per_output_token"]["median"] == pytest.approx(0.5)
    assert found["scope"] == "whole device"


def test_the_table_the_json_and_the_page_name_the_device_and_that_it_is_whole(spent):
    """A figure of a part of it cannot be had."""
    source = {"model": "m", "base_url": "u", "endpoint": "chat", "date": "2026-11-30", "instrument": {}, "plan": PLAN.facts()}
    content = json.loads(json.dumps(report([spent], {**source, "workload_sha256": "0"})))
    made = page.html(content, [spent], "x")

    assert "at 2: energy, J per output token: 0.5 (0.5 to 0.5) of processor package-0, the whole device" in as_text([spent])
    assert content["levels"][0]["energy"] == spent.energy
    assert "<h2>Energy</h2>" in made and "<td>processor package-0</td><td>0.5 (0.5 to 0.5)</td><td>whole device</td>" in made


def test_what_was_not_read_is_nowhere():
    """No note, no section, null in the JSON."""
    level = Level(1, (BLOCK,))
    source = {"model": "m", "base_url": "u", "endpoint": "chat", "date": "2026-11-30", "instrument": {}, "plan": PLAN.facts()}
    content = report([level], {**source, "workload_sha256": "0"})

    assert content["levels"][0]["energy"] is None and "energy" not in as_text([level])
    assert "<h2>Energy</h2>" not in page.html(content, [level], "x")


def test_packages_and_memory_are_read_and_what_lies_in_or_around_them_is_not(tmp_path):
    """The cores are within their package, the platform is around it: they would count twice."""
    for number, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "package-1"), ("2", "psys")):
        zone(tmp_path, number, name, 3 * 10**6)
    found, reason = energy.processors(tmp_path)

    assert [counter.device for counter in found] == ["processor package-0", "memory dram of package 0", "processor package-1"]
    assert [counter.joules() for counter in found] == [3, 3, 3] and reason is None


def test_no_counter_is_a_word_why(tmp_path):
    """A container, a virtual machine: the folder is missing or empty."""

    assert energy.processors(tmp_path) == ([], f"processors: {tmp_path} has no counter of a package")
    assert Meter(LOOPBACK, folder=tmp_path / "none").told == f"no GPU; processors: {tmp_path}/none has no counter of a package"


def test_a_counter_that_only_root_may_read_is_a_word_why(tmp_path, monkeypatch):
    """As on most systems since 2020; a mock, as the tests may be root."""
    zone(tmp_path, "0", "package-0")
    read = Path.read_text

    def refuse(file: Path, *how) -> str:
        if file.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(file, *how)

    monkeypatch.setattr(Path, "read_text", refuse)

    assert energy.processors(tmp_path) == ([], f"processors: energy_uj in {tmp_path} can be read by root alone")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        (LOOPBACK, True), ("http://localhost:1/v1", True), ("http://[::1]:1/v1", True), ("http://127.1.2.3/v1", True),
        ("http://10.0.0.1:8000/v1", False), ("https://api.example.com/v1", False), ("http://localhost.example.com/v1", False),
    ],
)  # fmt: skip
def test_only_a_server_on_loopback_is_on_this_machine(tmp_path, url, here):
    """The counters are of this machine: those of another one cannot be read here."""
    zone(tmp_path, "0", "package-0")
    meter = Meter(url, folder=tmp_path)

    assert energy.on_this_machine(url) is here and len(meter.counters) == here
    assert here or meter.told == "not read: the endpoint is not on this machine's loopback"


class MockNvml(SimpleNamespace):
    """Two GPUs, each with a counter in millijoules; with ``broken``, a card older than Volta."""

    def __init__(self, broken: bool = False):
        super().__init__(taken=[1000, 5000], broken=broken)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetIndex(self, handle: int) -> int:
        return handle

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA Mock"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if self.broken:
            raise RuntimeError("Not Supported")
        return self.taken[handle]


@pytest.fixture
def nvml(monkeypatch) -> MockNvml:
    """A machine with the two."""
    mock = MockNvml()
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", mock)
    return mock


def test_each_gpu_has_its_own_figure(nvml, tmp_path):
    """24 J and 6 J for twelve tokens: 2 J and 0.5 J a token; they are not added, as one may have been idle."""
    meter = Meter(LOOPBACK, folder=tmp_path)
    with meter.repeat(1):
        nvml.taken = [25_000, 11_000]
    found = meter.of(Level(1, (BLOCK,)))

    assert {name: of["joules_per_output_token"]["median"] for name, of in found.items()} == {
        "GPU 0 (NVIDIA Mock)": 2.0,
        "GPU 1 (NVIDIA Mock)": 0.5,
    }
    assert meter.told.startswith("GPU 0 (NVIDIA Mock), the whole device; GPU 1 (NVIDIA Mock), the whole device; processors: ")


def test_only_the_visible_gpus_are_read(nvml, monkeypatch):
    """Those that CUDA_VISIBLE_DEVICES names."""
    monkeypatch.setenv(machine.VISIBLE, "1")

    assert [counter.device for counter in energy.gpus()[0]] == ["GPU 1 (NVIDIA Mock)"]


def test_a_gpu_without_a_counter_is_a_word_why(nvml):
    """Older than Volta."""
    nvml.broken = True

    assert energy.gpus() == ([], "GPUs: NVML cannot be asked (Not Supported)")


def test_without_the_library_it_is_a_word_why(nvml, monkeypatch):
    """pynvml is not one of the bench's own libraries."""
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails

    assert energy.gpus() == ([], "GPUs: the library nvidia-ml-py is not installed")


def test_a_counter_that_was_set_back_has_no_figure():
    """A driver that was loaded anew: nobody knows what went before."""

    assert Counter("GPU 0", lambda: 0.0).between(10, 2) is None
    assert Counter("processor", lambda: 0.0, 12.0).between(10, 2) == 4


def test_a_counter_that_fails_costs_its_repeat():
    """The other repeats stay."""
    found = energy.per_token(["d"], [(BLOCK, (24.0,)), (BLOCK, (None,)), (BLOCK, (12.0,))])

    assert found["d"]["joules"] == [24.0, None, 12.0]
    assert (found["d"]["joules_per_output_token"]["low"], found["d"]["joules_per_output_token"]["high"]) == (1.0, 2.0)


def test_tokens_that_the_server_does_not_count_give_no_figure():
    """Events may be several tokens."""
    events = tuple(Sample(0, (1,), output_tokens=6, token_source="events") for _ in range(2))

    assert energy.per_token(["d"], [(events, (24.0,))]) == {}


def test_a_refused_level_has_none(tmp_path):
    """As it has no other figure."""
    zone(tmp_path, "0", "package-0")
    meter = Meter(LOOPBACK, folder=tmp_path)
    with meter.repeat(1):
        pass

    assert meter.of(Level(1, (BLOCK,), refused="not a measurement: x")) is None


def test_the_command_says_where_it_comes_from_or_why_it_is_not_there(tmp_path):
    """In the provenance, whatever this machine counts."""
    file = tmp_path / "figures.json"
    small = ["--users", "1", "--requests", "2", "--input-tokens", "8", "--output-tokens", "4", "--no-self-test", "--quiet"]
    with TruthServer() as mock:
        asked = [sys.executable, "-m", "helpers.bench", "--base-url", mock.base_url, "--model", "m", *small, "--json", str(file)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    found = json.loads(file.read_text())

    assert (done.returncode, done.stderr) == (0, "") and found["provenance"]["energy"]
    assert bool(found["levels"][0]["energy"]) == ("energy, J per output token" in done.stdout)


def test_both_stand_beside_a_level(tmp_path, monkeypatch):
    """Metrics and energy are watched around the same repeat; what is missing of one does not touch the other."""
    counter = zone(tmp_path, "0", "package-0")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with TruthServer() as mock:
        both = beside.Beside(Endpoint(mock.base_url, "m"))
    with both.repeat("", 1):
        counter.write_text("24000000")
    level = both.note(Level(1, (BLOCK,)))

    assert level.energy["processor package-0"]["joules_per_output_token"]["median"] == 2.0
    assert level.server_metrics is None and both.facts()["server_metrics"].startswith("none: /metrics has no name")
