"""The files that start copies: what Ray Serve's schema takes and what it passes over, and Kubernetes' parts that must agree."""

import importlib
import inspect
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers import kernels
from helpers.lessons.scaling import launch, manifests

READ = "import json, sys, pathlib; from helpers.lessons.scaling import manifests as m\n"
READ += "try: print(json.dumps(m.served(pathlib.Path(sys.argv[1]))))\n"
READ += "except m.ManifestError as error: sys.exit(str(error))\n"


def served(file: Path) -> subprocess.CompletedProcess:
    """``file`` held against the schema of the Ray that is installed."""
    return subprocess.run([kernels.interpreter("deploy"), "-c", READ, str(file)], capture_output=True, text=True, timeout=120)


def changed(folder: Path, before: str, after: str) -> Path:
    """``serve.yaml`` with one text in place of another."""
    text = manifests.SERVE.read_text()
    assert text.count(before) == 1
    (folder / "changed.yaml").write_text(text.replace(before, after))
    return folder / "changed.yaml"


@pytest.mark.engine
def test_ray_takes_its_file():
    """As it is committed, and as YAML reads it."""
    done = served(manifests.SERVE)

    assert json.loads(done.stdout) == yaml.safe_load(manifests.SERVE.read_text()), done.stderr


@pytest.mark.engine
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("max_replicas: 2", "max_replicas: 0", "max_replicas"),
        ("port: 8000", "port: many", "port"),
        ("upscale_delay_s:", "up_scale_delay_s:", "autoscaling_config has no 'up_scale_delay_s'"),
        ("num_cpus:", "cpus:", "ray_actor_options has no 'cpus'"),
    ],
)
def test_what_ray_refuses_or_would_pass_over_is_said(tmp_path, before, after, said):
    """A bad value, and a key that Ray itself would ignore: one line with the place."""
    done = served(changed(tmp_path, before, after))

    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_the_parts_for_kubernetes_agree():
    """Labels, ports, volumes, the scaler's target and its limits."""

    assert manifests.disagreements(manifests.documents()) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("labels: {app: vllm}", "labels: {app: other}", "the Deployment's selector and the pod's labels"),
        ("selector: {app: vllm}", "selector: {app: other}", "the Service's selector and the pod's labels"),
        ("targetPort: http", "targetPort: web", "the Service's port and the container's"),
        ("--port=8000", "--port=8001", "the server's --port and the container's"),
        ("--shutdown-timeout=100", "--shutdown-timeout=0", "the server's --shutdown-timeout and the pod's grace period"),
        ("GracePeriodSeconds: 120", "GracePeriodSeconds: 30", "the server's --shutdown-timeout and the pod's grace period"),
        ("- name: shm", "- name: memory", "what is mounted and the pod's volumes"),
        ("scaleTargetRef: {name: vllm}", "scaleTargetRef: {name: llm}", "the scaler's target and the Deployment"),
        ("maxReplicaCount: 8", "maxReplicaCount: 1", "the scaler's limits"),
    ],
)
def test_parts_that_do_not_agree_are_named(tmp_path, before, after, said):
    """One change each."""
    text = manifests.KUBERNETES.read_text()
    assert text.count(before) == 1
    (tmp_path / "changed.yaml").write_text(text.replace(before, after))

    assert said in manifests.disagreements(manifests.documents(tmp_path / "changed.yaml"))


@pytest.mark.engine
def test_vllm_takes_the_containers_command():
    """Its own parser, with the options as they are meant."""
    wanted = [manifests.command(manifests.documents())]
    (took,) = kernels.ask("vllm", "helpers.lessons.scaling.launch", "vllm", given=json.dumps(wanted))

    assert took["host"] == "0.0.0.0"
    assert took["max_model_len"] == 8192
    assert took["shutdown_timeout"] == 100
    assert launch.arguments(wanted[0])[0] == "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.engine
def test_vllm_has_the_metrics_and_the_address_of_the_probes():
    """In the sources of the release that is installed."""
    where = "import importlib.util; print(importlib.util.find_spec('vllm').submodule_search_locations[0])"
    package = Path(subprocess.run([kernels.interpreter("vllm"), "-c", where], capture_output=True, text=True).stdout.strip())
    loggers = (package / "v1/metrics/loggers.py").read_text()

    assert manifests.metrics(manifests.documents()) == ["vllm:num_requests_running", "vllm:num_requests_waiting"]
    assert all(f'"{name}"' in loggers for name in manifests.metrics(manifests.documents()))
    assert '"/health"' in (package / "entrypoints/serve/instrumentator/health.py").read_text()


def test_the_file_names_a_builder():
    """Ray calls what stands behind ``import_path`` with the application's arguments, and wants a function of one of them."""
    (application,) = yaml.safe_load(manifests.SERVE.read_text())["applications"]
    module, _, name = application["import_path"].partition(":")

    assert len(inspect.signature(getattr(importlib.import_module(module), name)).parameters) == 1
