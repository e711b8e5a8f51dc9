"""Copies of a server as files, for Ray Serve and for Kubernetes, and what of them can be checked without a cluster.

``serve.yaml`` is held against Ray Serve's own schema, in the kernel ``deploy``; notebook 13 starts its copies from it. For
``kubernetes.yaml`` no schema is at hand: its parts must agree with each other, and vLLM's own parser must take the command
(:func:`helpers.lessons.scaling.launch.parsed`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from helpers import paths

SERVE = Path(__file__).with_name("serve.yaml")
KUBERNETES = Path(__file__).with_name("kubernetes.yaml")


class ManifestError(ValueError):
    """A file that its own system would refuse, or read otherwise than it is meant: the file, the reason, the place."""


def documents(file: Path = KUBERNETES) -> list[dict]:
    """Every document of a YAML file."""
    import yaml

    return list(yaml.safe_load_all(paths.data(file)))


def served(file: Path = SERVE) -> dict:
    """What ``file`` says to Ray Serve, as its schema takes it. Only in the kernel ``deploy``.

    Raises :class:`ManifestError` if the schema refuses a value, and for a key that it has not: Ray itself passes over those,
    so that a word spelt wrong changes nothing and nobody hears of it.
    """
    from pydantic import ValidationError

    (found,) = documents(file)
    try:
        for place, model, part in _parts(found):
            model.model_validate(part)
            if strange := sorted(part.keys() - model.model_fields.keys()):
                raise ManifestError(f"{file.name}: {place} has no {strange[0]!r}; it knows {', '.join(model.model_fields)}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or place
        raise ManifestError(f"{file.name}: {where}: {first['msg']}") from None
    return found


def _parts(found: Mapping) -> Iterator[tuple[str, type, Mapping]]:
    """Each part of a Serve file with its place and Ray's model of it."""
    from ray.serve import schema
    from ray.serve.config import AutoscalingConfig  # the schema takes any dict there

    yield "the file", schema.ServeDeploySchema, found
    yield "http_options", schema.HTTPOptionsSchema, found.get("http_options", {})
    for application in found["applications"]:
        yield f"application {application['name']}", schema.ServeApplicationSchema, application
        for copies in application.get("deployments", []):
            yield f"deployment {copies['name']}", schema.DeploymentSchema, copies
            yield "ray_actor_options", schema.RayActorOptionsSchema, copies.get("ray_actor_options", {})
            yield "autoscaling_config", AutoscalingConfig, copies.get("autoscaling_config") or {}


def copies(file: Path = SERVE) -> tuple[dict, dict]:
    """Of the one deployment in ``file``: the arguments of its application, and its options for ``serve.deployment``."""
    (application,) = served(file)["applications"]
    (options,) = application["deployments"]
    return application["args"], {name: value for name, value in options.items() if name != "name"}


def command(found: Sequence[Mapping]) -> str:
    """The command of the one container in the Deployment of ``found``."""
    container = _container(_kinds(found)["Deployment"])
    return shlex.join([*container["command"], *container["args"]])


def metrics(found: Sequence[Mapping]) -> list[str]:
    """The engine's metrics that the scaler of ``found`` asks for."""
    triggers = _kinds(found)["ScaledObject"]["spec"]["triggers"]
    return sorted({name for one in triggers for name in re.findall(r"vllm:\w+", one["metadata"]["query"])})


def disagreements(found: Sequence[Mapping]) -> list[str]:
    """Where a part of ``found`` names something that another part has not: a line each."""
    kinds = _kinds(found)
    deployment, service, scaler = (kinds[kind] for kind in ("Deployment", "Service", "ScaledObject"))
    container, spec = _container(deployment), scaler["spec"]
    labels, pod = deployment["spec"]["template"]["metadata"]["labels"].items(), deployment["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    volumes = {one["name"] for one in pod.get("volumes", [])}
    drains_s = [int(word.partition("=")[2]) for word in container["args"] if word.startswith("--shutdown-timeout=")]
    grace_s = pod["terminationGracePeriodSeconds"]
    told = {
        "the Deployment's selector and the pod's labels": deployment["spec"]["selector"]["matchLabels"].items() <= labels,
        "the Service's selector and the pod's labels": service["spec"]["selector"].items() <= labels,
        "the Service's port and the container's": {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys(),
        "a probe's port and the container's": set(probes) <= ports.keys(),
        "the server's --port and the container's": [f"--port={port}" in container["args"] for port in ports.values()] == [True],
        "the server's --shutdown-timeout and the pod's grace period": [0 < one < grace_s for one in drains_s] == [True],
        "what is mounted and the pod's volumes": {one["name"] for one in container.get("volumeMounts", [])} <= volumes,
        "the scaler's target and the Deployment": spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"],
        "the scaler's limits": spec["minReplicaCount"] <= deployment["spec"]["replicas"] <= spec["maxReplicaCount"],
    }
    return [what for what, agrees in told.items() if not agrees]


def _kinds(found: Sequence[Mapping]) -> dict[str, Mapping]:
    return {one["kind"]: one for one in found}


def _container(deployment: Mapping) -> Mapping:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container
