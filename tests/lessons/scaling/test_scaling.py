"""Copies of an engine on a Ray cluster of this machine: killed in the middle, nothing is lost and nothing is left."""

import json
import os
import signal
import socket
import subprocess
import textwrap
import time

import psutil
import pytest
from leftovers import wait_until

from helpers import kernels
from helpers.lessons.scaling import ray_cluster, replicas

pytestmark = pytest.mark.engine

BEGIN = """
import json, os, signal, subprocess, sys, time
from helpers.lessons.scaling import ray_cluster, replicas
from helpers.servers import serving
ENGINE = {"slots": 4, "context": 128, "threads": 1}
"""

BOTH = """
import concurrent.futures, httpx

def batch(cluster):
    import ray
    rows = [{"id": i, "prompt": f"The number {i} is"} for i in range(16)]
    rows[5]["prompt"] = "word " * 400
    table = ray.data.from_items(rows, override_num_blocks=8)
    given = {**ENGINE, "output_tokens": 24}
    made = table.map_batches(replicas.Asker, fn_constructor_kwargs=given, concurrency=2, num_cpus=0.5, batch_size=2)
    done, killed = [], []
    for row in made.iter_rows():
        if len(done) == 0:
            killed.append(row["process"])
            os.kill(row["process"], signal.SIGKILL)
        if len(done) == 4:
            cluster.engines()[0].kill()
        done.append(row)
    found = {
        "done": [row["id"] for row in done],
        "errors": {row["id"]: row["error"] for row in done if row["error"]},
        "processes": sorted({row["process"] for row in done} - set(killed)),
        "open": cluster.open_to_others(),
    }
    join = "from helpers.lessons.scaling import ray_cluster\\nwith ray_cluster.cluster(sys.argv[1]):\\n import ray"
    join = "import sys\\n" + join + "\\n print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    joined = subprocess.run([sys.executable, "-c", join, cluster.address], capture_output=True, text=True, timeout=100)
    del made
    deadline = time.monotonic() + 30
    while cluster.engines() and time.monotonic() < deadline:
        time.sleep(0.2)
    return found | {"joined": joined.stdout.strip() or joined.stderr[-500:], "engines": len(cluster.engines())}

def service(cluster):
    from openai import OpenAI
    from ray import serve
    port = serving.free_port()
    options = {"health_check_period_s": 1, "ray_actor_options": {"num_cpus": 0.5}, "max_constructor_retry_count": 1}
    options |= {"graceful_shutdown_timeout_s": 2, "graceful_shutdown_wait_loop_s": 0.1}
    replicas.deploy(port, num_replicas=2, autoscaling_config=None, max_constructor_retry_count=1)
    asker = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=8, timeout=60)
    model = replicas.endpoint(asker.base_url.__str__()).model
    done = []
    def ask(i):
        done.append((i, asker.completions.create(model=model, prompt=f"The number {i} is", max_tokens=16).choices[0].text))
        if i == 4:
            os.kill(cluster.replicas()[0].pid, signal.SIGKILL)
        if i == 12:
            cluster.engines()[0].kill()
    with concurrent.futures.ThreadPoolExecutor(4) as users:
        list(users.map(ask, range(24)))
    found = {"done": [i for i, _ in done], "empty": [i for i, text in done if not text], "open": cluster.open_to_others()}
    status = lambda: serve.status().applications["default"].deployments["Replica"].replica_states
    deadline = time.monotonic() + 60
    while status() != {"RUNNING": 2} and time.monotonic() < deadline:
        time.sleep(0.2)
    found["replicas"] = {str(state): count for state, count in status().items()}
    try:
        replicas.run(serve.deployment(replicas.Replica).options(**options).bind(context=9999), port)
    except ray_cluster.ScalingError as error:
        found["refused"] = str(error)
    found["status"] = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=60, trust_env=False).status_code
    return found

with ray_cluster.cluster() as cluster:
    found = {"batch": batch(cluster), "service": service(cluster)}
found["left"] = len(cluster.processes())
print(json.dumps(found))
"""

KILLED = """
with ray_cluster.cluster() as cluster:
    import ray
    Asker = ray.remote(replicas.Asker)
    asker = Asker.options(num_cpus=0.5).remote(**ENGINE)
    ray.get(asker.__call__.remote({"id": [0], "prompt": ["One, two,"]}))
    print(cluster.mark, flush=True)
    time.sleep(600)
"""


def start(script: str) -> subprocess.Popen:
    """A Python of the kernel ``deploy`` that runs ``script``."""
    command = [kernels.interpreter("deploy"), "-c", BEGIN + textwrap.dedent(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(script: str) -> dict:
    """What ``script`` prints as its last line, from JSON."""
    said, error = start(script).communicate(timeout=240)
    assert said.strip(), error[-3000:]
    return json.loads(said.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def both() -> dict:
    return run(BOTH)


@pytest.fixture
def batch(both) -> dict:
    return both["batch"]


@pytest.fixture
def service(both) -> dict:
    return both["service"]


def test_nothing_is_left(both):
    """No process carries the cluster's mark after its block, though four were killed in it."""

    assert both["left"] == 0


class TestBatch:
    """Ray Data, one process killed and the engine of another."""

    def test_every_row_is_answered_once(self, batch):
        """The ids that were asked are the ids that were answered."""

        assert sorted(batch["done"]) == list(range(16))

    def test_a_hopeless_row_is_set_aside_with_its_reason(self, batch):
        """The row that is longer than the context, and no other."""

        assert list(batch["errors"]) == ["5"]
        assert batch["errors"]["5"].startswith("too long: ")

    def test_its_engines_end_with_it(self, batch):
        """While the cluster goes on."""

        assert batch["engines"] == 0

    def test_others_took_over(self, batch):
        """Rows come from processes that were not killed."""

        assert batch["processes"]

    def test_nothing_listens_to_other_machines(self, batch):
        """Every port of the cluster is on loopback."""

        assert batch["open"] == []

    def test_another_process_joins_by_address(self, batch):
        """The same call with the address of a running cluster, as on many machines."""

        assert batch["joined"] == "42"


class TestService:
    """Ray Serve, one replica killed and the engine of another."""

    def test_every_request_is_answered_once(self, service):
        """With a client that may ask again."""

        assert sorted(service["done"]) == list(range(24))
        assert service["empty"] == []

    def test_the_replicas_come_back(self, service):
        """Two run again, without anyone asking for it."""

        assert service["replicas"] == {"RUNNING": 2}

    def test_replicas_listen_on_loopback_only(self, service):
        """Serve's own port for each replica included."""

        assert service["open"] == []

    def test_a_replica_that_cannot_start_says_why(self, service):
        """The constructor's own reason, in one line."""

        assert service["refused"].startswith("no replica could be started: ")
        assert "context=9999" in service["refused"] and "\n" not in service["refused"]

    def test_without_a_replica_the_address_answers(self, service):
        """With an error status, not with silence."""

        assert service["status"] >= 400


def marked(mark: str) -> list[psutil.Process]:
    return ray_cluster.Cluster("", mark).processes()


def test_a_killed_owner_leaves_no_process():
    """The process that started the cluster is killed: Ray's processes and the engine end."""
    owner = start(KILLED)
    mark = owner.stdout.readline().strip()
    assert len(marked(mark)) > 3
    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    assert wait_until(lambda: not marked(mark), timeout_s=30), [process.cmdline() for process in marked(mark)]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no cluster answers at 127.0.0.1:1 (Connection refused): start one there with `ray start --head`"),
        ("head-node", "cluster address 'head-node' is not host:port"),
        ("127.0.0.1:99999", "no cluster answers at 127.0.0.1:99999"),
        ("no-such-host.invalid:6379", "no cluster answers at no-such-host.invalid:6379"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address, said):
    """In one line, before Ray is even imported."""
    with pytest.raises(ray_cluster.ScalingError) as refused, ray_cluster.cluster(address):
        pass

    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_what_is_no_cluster_is_refused():
    """Something listens there and never answers: said within half a minute, where ray.init waits for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        said, error = start(f"ray_cluster.cluster({address!r}).__enter__()").communicate(timeout=60)

    assert f"what listens at {address} does not answer as a Ray cluster" in error
    assert time.monotonic() - started < 2 * ray_cluster.ANSWER_TIMEOUT_S + 10


def test_the_reason_of_a_traceback_is_its_last_error():
    """Ray's own lines around it are left out."""
    text = "Deploying failed\nTraceback\n  File x\nValueError: context=9: too long\nThe deployment failed 1 times"

    assert replicas._last_reason(text) == "ValueError: context=9: too long"


def test_files_of_a_killed_owner_are_swept(tmp_path):
    """A folder whose owner has ended goes, one whose owner lives stays."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    for owner in (ended.pid, os.getpid()):
        (tmp_path / f"ray-{owner}-x").mkdir()

    ray_cluster.sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [f"ray-{os.getpid()}-x"]
