"""tests/lanes.py: test processes at once do not share a core."""

import os
from pathlib import Path
from types import SimpleNamespace

import lanes
import pytest


def test_each_worker_has_neighbouring_cores_of_its_own():
    """Five cores for two workers: two each, and one for neither."""
    assert [lanes.cores(f"gw{n}", 2, {2, 3, 4, 5, 9}) for n in (0, 1)] == [{2, 3}, {4, 5}]


def test_fewer_cores_than_workers_are_shared():
    """No worker is left without a core."""
    before = os.sched_getaffinity(0)
    lanes.keep_to("gw0", len(before) + 1)

    assert lanes.cores("gw0", 2, {0}) == set() and os.sched_getaffinity(0) == before


def test_this_process_keeps_to_its_lane(request):
    """Under pytest-xdist, a worker has its share of the cores and no more."""
    count = getattr(request.config, "workerinput", {}).get("workercount")
    if count is None:
        pytest.skip("one process runs all tests here: no lanes (nox starts several)")

    there = len(os.sched_getaffinity(os.getppid()))
    assert len(os.sched_getaffinity(0)) == (there // count or there)


def test_the_longest_file_is_begun_first():
    """The others stay in their order."""
    items = [SimpleNamespace(path=Path(name)) for name in ("a.py", "tests/test_site.py", "b.py")]
    lanes.longest_first(items)

    assert [item.path.name for item in items] == ["test_site.py", "a.py", "b.py"]
