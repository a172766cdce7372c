"""The manifests of deploy/kubernetes: valid, locked, and at one with each other and the program."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from digitq.commands.run import metrics
from digitq.worker.sight.limits import MAX_CLOCK_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
COMPONENT = "app.kubernetes.io/component"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
ALL = [
    resource
    for name in KUSTOMIZATION["resources"]
    if name.endswith(".yaml")
    for resource in yaml.safe_load_all((FOLDER / name).read_text())
]
BUILDERS = {"kustomize": ["kustomize", "build"], "kubectl": ["kubectl", "kustomize"]}
BUILDER = next(filter(shutil.which, BUILDERS), None)


def of_kind(*kinds: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one["spec"] for one in ALL if one["kind"] in kinds}


WORKLOADS = of_kind("Deployment", "StatefulSet")
PODS = {name: workload["template"]["spec"] for name, workload in WORKLOADS.items()}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}
SCALING = of_kind("ScaledObject")["worker"]
TRIGGER = SCALING["triggers"][0]["metadata"]


@pytest.mark.parametrize("resource", ALL, ids=lambda one: one["kind"] + one["metadata"]["name"])
def test_kubernetes_takes_it(resource: dict[str, Any]) -> None:
    if resource["apiVersion"].startswith("keda.sh/"):
        return  # not Kubernetes's own
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_builds_it() -> None:
    if BUILDER is None:
        pytest.skip("needs kustomize or kubectl")
    text = subprocess.run([*BUILDERS[BUILDER], FOLDER], stdout=subprocess.PIPE, check=True).stdout
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
    (configuration,) = (name for kind, name in made if kind == "ConfigMap")
    redis = made["StatefulSet", "redis"]["spec"]["template"]["spec"]
    assert redis["volumes"][0]["configMap"]["name"] == configuration
    data = made["ConfigMap", configuration]["data"]
    assert {name: (ROOT / "deploy/redis" / name).read_text() for name in data} == data
    for (kind, name), one in made.items():
        if kind != "Namespace":
            assert one["metadata"]["namespace"] == "digitq"
        if kind == "Deployment":
            image = one["spec"]["template"]["spec"]["containers"][0]["image"]
            assert re.fullmatch(r"registry\.example/digitq-\w+:\d+\.\d+\.\d+", image), name
    kubernetes_validate.validate(
        made["StatefulSet", "redis"], kubernetes_validate.latest_version(), strict=True
    )


def test_images_are_those_of_the_compose_file_and_of_this_version() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    version = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    images = {image["name"]: image for image in KUSTOMIZATION["images"]}
    assert {container["image"] for container in CONTAINERS.values()} == {*images, "redis:8"}
    for name, image in images.items():
        assert f"image: {name}:${{IMAGE_TAG:-latest}}" in compose
        assert image["newName"].endswith(f"/{name}") and [image["newTag"]] == version


@pytest.mark.parametrize("name", PODS)
def test_a_pod_can_t_change_itself_or_others(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {one["metadata"]["name"] for one in WORKLOADS[name].get("volumeClaimTemplates", ())}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {*mounts.values()} == volumes and mounts["/tmp"] == "tmp"
    assert container["resources"].keys() == {"requests", "limits"}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_names_selectors_and_ports_agree() -> None:
    for name, workload in WORKLOADS.items():
        labels = {COMPONENT: name}
        assert workload["selector"]["matchLabels"] == labels
        assert workload["template"]["metadata"]["labels"] == labels
    for name, service in of_kind("Service").items():
        (port,), (inside,) = service["ports"], CONTAINERS[name]["ports"]
        assert service["selector"] == {COMPONENT: name}
        assert port["targetPort"] == inside["name"] and port["port"] == inside["containerPort"]
    assert WORKLOADS["redis"]["serviceName"] == "redis"
    for name in ("worker", "flower", "metrics"):
        values = {one["name"]: one.get("value") for one in CONTAINERS[name]["env"]}
        assert values["DIGITQ_BROKER_URL"] == f"redis://{name}:$(REDIS_PASSWORD)@redis:6379/0"


def test_each_has_the_password_of_its_own_redis_user() -> None:
    known = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    for name, container in CONTAINERS.items():
        sources = [one["valueFrom"] for one in container["env"] if "valueFrom" in one]
        keys = {source["secretKeyRef"]["key"] for source in sources}
        assert {source["secretKeyRef"]["name"] for source in sources} == {"digitq"}
        assert keys <= known
        own = {key for key in known if key.startswith("REDIS_")}
        expected = own if name == "redis" else {f"REDIS_{name.upper()}_PASSWORD"}
        assert keys - {"FLOWER_BASIC_AUTH"} == expected


def test_only_redis_s_clients_reach_it() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    names = ["producer", "worker", "flower", "metrics"]
    clients = {"key": COMPONENT, "operator": "In", "values": names}
    assert {*names} == {*WORKLOADS} - {"redis"} | {"producer"}
    (ingress,), (egress, dns) = policies["redis"]["ingress"], policies["clients"]["egress"]
    assert ingress["from"] == [{"podSelector": {"matchExpressions": [clients]}}]
    assert policies["clients"]["podSelector"] == {"matchExpressions": [clients]}
    assert egress["to"] == [{"podSelector": policies["redis"]["podSelector"]}]
    assert egress["ports"] == ingress["ports"] == [{"protocol": "TCP", "port": 6379}]
    assert {port["port"] for port in dns["ports"]} == {53}
    (metrics_port,) = policies["metrics"]["ingress"][0]["ports"]
    assert metrics_port["port"] == CONTAINERS["metrics"]["ports"][0]["containerPort"]


def test_a_worker_has_one_process_and_time_to_end_its_chunk() -> None:
    worker = CONTAINERS["worker"]
    assert worker["args"] == ["worker", "--concurrency", "1"]
    assert PODS["worker"]["terminationGracePeriodSeconds"] > MAX_CLOCK_SECONDS
    for probe, check in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        command = worker[f"{probe}Probe"]["exec"]["command"]
        assert command == ["digitq", "worker", "--check", check]


def test_workers_are_scaled_by_a_metric_that_can_be_reached() -> None:
    assert SCALING["scaleTargetRef"] == {"name": "worker"}
    assert "replicas" not in WORKLOADS["worker"]  # else each `kubectl apply` would set it
    assert SCALING["minReplicaCount"] == 0 and "fallback" not in SCALING
    url = urlsplit(TRIGGER["url"])
    (service,) = of_kind("Service")["metrics"]["ports"]
    (default,) = (option.default for option in metrics.params if option.name == "port")
    assert url.hostname == f"metrics.{KUSTOMIZATION['namespace']}.svc"
    assert url.port == service["port"] == default
