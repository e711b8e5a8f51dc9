"""What is seen of the client's machine, and what is said of it."""

import pytest

from helpers.bench import measure, surroundings
from helpers.bench.client import Endpoint
from helpers.bench.measure import Plan
from helpers.bench.surroundings import Moment
from helpers.bench.truth_server import TruthServer


def moment(at_s: float, client_s: float = 0.0, load: float = 0.5, **cpu_s: float) -> Moment:
    return Moment(at_s, {"user": 0.0, "idle": 0.0, "steal": 0.0, **cpu_s}, client_s, load, (1000.0, 2000.0))


def test_shares_are_those_between_the_moments():
    """Two spans of 1 s on two cores: 0.6 s of 4 s stolen, 1.2 s idle, 0.6 of a core the client's; between them nobody looked."""
    spans = [
        (moment(0), moment(1, 0.5, user=0.8, idle=1.0, steal=0.2)),
        (moment(9, 5.0, user=9.0, idle=9.0, steal=9.0), moment(10, 5.7, 2.5, user=10.4, idle=9.2, steal=9.4)),
    ]
    found = surroundings.between(spans)

    assert (found["stolen_share"], found["busy_share"], found["client_cores"]) == (0.15, 0.55, 0.6)
    assert (found["frequency_mhz"], found["load_average"]) == ([1000, 2000], [0.5, 2.5])


def test_what_was_not_watched_is_not_known():
    """No span, no figure."""

    assert surroundings.between([]) is None and surroundings.warnings(None) == []


def test_the_governors_are_read_where_there_are_some(tmp_path):
    """A mock of /sys with two cores."""
    for core, name in enumerate(("powersave", "performance")):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")

    assert surroundings.governors(tmp_path) == ["performance", "powersave"]
    assert surroundings.governors(tmp_path / "none") == []


QUIET = {"governors": ["performance"], "stolen_share": 0.0, "client_cores": 0.2}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, []),
        ({"governors": ["powersave"]}, ["the CPU governor is powersave: it may double a TTFT; set performance"]),
        ({"stolen_share": 0.05}, ["5.0% of the cores were taken by other guests of the host (steal)"]),
        ({"client_cores": 0.97}, ["the client used 0.97 of a core: it may be the limit; see its ceiling"]),
    ],
)
def test_what_can_move_a_figure_is_said(seen, said):
    """A quiet machine is no news."""

    assert surroundings.warnings({**QUIET, **seen}) == said


def test_a_level_keeps_what_its_machine_did():
    """Between before and after each repeat, in the JSON."""
    with TruthServer() as mock:
        (level,) = measure.measure(
            Endpoint(mock.base_url, "m"), Plan(users=(20,), input_tokens=8, output_tokens=100, settle=False)
        )
    found = level.to_dict()["client_machine"]

    assert 0 <= found["stolen_share"] <= 1 and 0 <= found["busy_share"] <= 1 and found["client_cores"] > 0
    assert found["open_files"] == surroundings.open_files()
