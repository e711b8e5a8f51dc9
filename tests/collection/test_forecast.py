"""A forecast is the committed minutes times what the probe found."""

from books import NOTEBOOKS

from helpers import machine
from helpers.collection import forecast, notebooks


def test_every_notebook_has_a_row_with_its_minutes_times_the_slowness(monkeypatch):
    """Rounded up, as nobody plans with less; the reading is the reader's and does not change."""
    monkeypatch.setattr(notebooks, "unmet", lambda requires: None)
    idle, busy = forecast.table(slowness=1), forecast.table(slowness=2.5)

    assert list(idle.index) == [path.stem for path in NOTEBOOKS]
    assert (busy["minutes to run here"] >= 2.5 * idle["minutes to run here"]).all()
    assert (busy["minutes to run here"] < 2.5 * idle["minutes to run here"] + 1).all()
    assert (busy["minutes to read"] == idle["minutes to read"]).all()


def test_what_cannot_run_here_says_why(monkeypatch):
    """The reason stands where the minutes would."""
    monkeypatch.setattr(notebooks, "unmet", lambda requires: "no such kernel")

    assert set(forecast.table(slowness=1)["minutes to run here"]) == {"no such kernel"}


def test_without_a_number_the_machine_is_probed(monkeypatch):
    """The slowness that the machine has now."""
    monkeypatch.setattr(notebooks, "unmet", lambda requires: None)
    monkeypatch.setattr(machine, "slowness", lambda: 3.0)

    assert forecast.table().equals(forecast.table(slowness=3.0))
