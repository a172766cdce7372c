"""The alert rules, the dashboard and their part of docker-compose.yml."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digitq.protocol.settings import Settings
from tests.unit.test_docs import PAGES, first_column

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"
RULES = yaml.safe_load((FOLDER / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana/digitq.json").read_text())
ALERTS = {rule["alert"]: rule for rule in RULES}
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [item["expr"] for item in [*RULES, *TARGETS]]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool")
    subprocess.run(["promtool", *arguments], check=True)


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", FOLDER / "prometheus/prometheus.yml")


def test_alerts_are_raised_when_they_should_be() -> None:
    promtool("test", "rules", ROOT / "tests/alerts.yml")
    tested = yaml.safe_load((ROOT / "tests/alerts.yml").read_text())["tests"]
    raised = {
        one["alertname"]
        for test in tested
        for one in test["alert_rule_test"]
        if "exp_alerts" in one
    }
    assert raised == {*ALERTS}


def test_prometheus_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"r{n}", "expr": target["expr"]} for n, target in enumerate(TARGETS)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


def test_every_metric_that_is_used_exists() -> None:
    page = PAGES["docs/watch.md"]
    known = [first_column(page, f"| {kind} | labels |") for kind in ("counter", "gauge")]
    used = set(re.findall(r"\bdigitq_\w+", " ".join(EXPRESSIONS)))
    assert used <= {*sum(known, [])} and len(used) > 15


def test_a_chunk_is_overdue_well_after_the_default_deadline() -> None:
    seconds = 4 * Settings.model_fields["deadline_seconds"].default
    assert ALERTS["DigitqChunkOverdue"]["expr"] == f"digitq_chunk_silence_seconds > {seconds:g}"


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    def provisioned(kind: str) -> Any:
        (file,) = (FOLDER / "grafana/provisioning" / kind).iterdir()
        return yaml.safe_load(file.read_text())

    (source,) = provisioned("datasources")["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090" and "prometheus" in SERVICES
    (provider,) = provisioned("dashboards")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    path = provider["options"]["path"]
    assert mounts["./deploy/monitoring/grafana/digitq.json"] == f"{path}/digitq.json"
    for source_path in mounts:
        assert not source_path.startswith("./") or (ROOT / source_path).exists()


def test_monitoring_is_published_on_this_host_only() -> None:
    for name in ("prometheus", "grafana"):
        service = SERVICES[name]
        (port,) = service["ports"]
        assert service["profiles"] == ["monitoring"] and port.startswith("127.0.0.1:")
        assert service["read_only"] and service["cap_drop"] == ["ALL"]


def test_compose_asks_for_no_password_of_grafana_unless_it_starts() -> None:
    needed = {*re.findall(r"\$\{(\w+):\?run deploy/passwords\}", COMPOSE)}
    users = {f"REDIS_{name}_PASSWORD" for name in ("PRODUCER", "WORKER", "FLOWER", "METRICS")}
    assert needed == users | {"FLOWER_BASIC_AUTH"}
    grafana = SERVICES["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    *shell, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "echo started")
    for password, ended in (("", (1, "")), ("secret", (0, "started\n"))):
        started = subprocess.run(
            [*shell, script],
            env={"GF_SECURITY_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
        )
        assert (started.returncode, started.stdout) == ended
        assert ("run deploy/passwords" in started.stderr) == (not password)
