"""The files of deploy/: they can be read, and agree with one another and with the settings."""

from __future__ import annotations

import json
import os
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from cohortlake import Settings
from cohortlake.cli.unattended import Installation
from cohortlake.settings import SETTINGS
from pipelines.jobs import JOBS

REPOSITORY = Path(__file__).resolve().parents[3]
CELERY, KUBERNETES = REPOSITORY / "deploy/celery", REPOSITORY / "deploy/kubernetes"
TEMPLATE = REPOSITORY / "deploy/ecs/template.yaml"


def read_env() -> dict[str, str]:
    lines = (CELERY / "cluster.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
    return read


def deployment() -> dict[str, Any]:
    (one,) = values()["dagster-user-deployments"]["deployments"]
    return dict(one)


def names_in(tree: Any) -> set[str]:
    """Return the environment variables that a YAML file names by `env:`."""
    if isinstance(tree, Mapping):
        own = {tree["env"]} if isinstance(tree.get("env"), str) else set()
        return own.union(*(names_in(value) for value in tree.values()))
    return set()


def test_the_instance_of_celery_is_one_that_dagster_accepts() -> None:
    config, _ = dagster_instance_config(str(CELERY))
    assert config["run_launcher"]["class"] == "AttentiveCeleryRunLauncher"
    assert names_in(dict(config)) == {n for n in read_env() if n.startswith("DAGSTER_")}


def test_the_instance_of_kubernetes_is_one_that_dagster_accepts(tmp_path: Path) -> None:
    more = values()["additionalInstanceConfig"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(more))
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["run_retries"] == {
        "enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "instance"),
    [
        (read_env(), yaml.safe_load((CELERY / "dagster.yaml").read_text())),
        (
            deployment()["env"] | {"COHORTLAKE_DATASTORES": "0" * 32},
            values()["additionalInstanceConfig"],
        ),
    ],
    ids=["celery", "kubernetes"],
)
def test_the_searchers_share_the_quota(
    environment: dict[str, str], instance: dict[str, Any]
) -> None:
    settings = Settings.from_env(environment)
    limit = instance["concurrency"]["pools"]["default_limit"]
    assert limit * settings.tps == float(environment["COHORTLAKE_TPS"])
    assert settings.burst == 1
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] >= limit


def test_celery_remembers_a_run_longer_than_any_run_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_CELERY_BROKER", "redis://broker/0")
    config = runpy.run_path(str(CELERY / "dagster_celery_config.py"))
    longest = max(float((job.run_tags or {})["dagster/max_runtime"]) for job in JOBS)
    assert config["result_expires"] > longest
    assert config["broker_transport_options"]["visibility_timeout"] > longest


@pytest.mark.parametrize("group", ["celery", "kubernetes"])
def test_a_lock_has_the_versions_that_are_tested(group: str) -> None:
    text = (REPOSITORY / "deploy" / group / "requirements.txt").read_text()
    assert "://" not in text
    own, tested = pins(text), pins((REPOSITORY / "requirements.txt").read_text())
    assert {name: own[name] for name in own.keys() & tested.keys()} == {
        name: tested[name] for name in own.keys() & tested.keys()
    }
    # Libraries of Dagster 1.13 are 0.29, with the same last number.
    _, minor, patch = tested["dagster"].split(".")
    assert own["dagster-postgres"] == f"0.{int(minor) + 16}.{patch}"


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==([^ ;\\]+)", lock, re.MULTILINE))


def test_what_the_image_copies_is_there() -> None:
    text = (KUBERNETES / "Dockerfile").read_text()
    sources = [
        source for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]  # fmt: skip
    let_in = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in sources:
        is_folder = (REPOSITORY / source).is_dir()
        assert (REPOSITORY / source).exists()
        assert f"!{source}{'/**' if is_folder else ''}" in let_in


def test_secrets_are_named_where_they_are_used() -> None:
    documents = yaml.safe_load_all((KUBERNETES / "secrets.yaml").read_text())
    names = {document["metadata"]["name"] for document in documents}
    used = {secret["name"] for secret in deployment()["envSecrets"]}
    assert names == used | {values()["global"]["postgresqlSecretName"]}


class _Template(yaml.SafeLoader):
    """Reads a template of CloudFormation; its functions stay as texts."""


_Template.add_multi_constructor("!", lambda loader, name, node: f"{name} {node.value}")


def resources(kind: str) -> dict[str, dict[str, Any]]:
    read = yaml.load(TEMPLATE.read_text(), _Template)  # noqa: S506 it makes texts only
    found = read["Resources"].items()
    return {name: one["Properties"] for name, one in found if one["Type"] == f"AWS::{kind}"}


def test_ecs_starts_the_commands_of_cron_at_their_times() -> None:
    installation = Installation("/bin/cohortlake", Path("/"), "nobody", {})
    jobs = re.findall(
        r"^(\S+ \S+) \S+ \S+ (\S) .*?/bin/cohortlake (\w+)(.*?)( 2>&1\)| >>)",
        installation.crontab(),
        re.MULTILINE,
    )
    expected = {}
    for time, weekday, name, options, _ in jobs:
        days = "* * ?" if weekday == "*" else "? * SUN"
        expected[name] = (f"cron({time} {days} *)", ["cohortlake", name, *options.split()])
    assert len(expected) == 4
    found = {
        name.lower(): (one["ScheduleExpression"], json.loads(one["Target"]["Input"]))
        for name, one in resources("Scheduler::Schedule").items()
    }
    (container,) = resources("ECS::TaskDefinition")["Task"]["ContainerDefinitions"]
    assert found == {
        name: (at, {"containerOverrides": [{"name": container["Name"], "command": command}]})
        for name, (at, command) in expected.items()
    }


def test_the_settings_of_ecs_are_settings_and_share_the_quota() -> None:
    (container,) = resources("ECS::TaskDefinition")["Task"]["ContainerDefinitions"]
    given = {one["Name"]: one["Value"] for one in container["Environment"]}
    assert set(given) - {"AWS_REGION"} <= {setting.variable for setting in SETTINGS}
    parameters = yaml.load(TEMPLATE.read_text(), _Template)["Parameters"]  # noqa: S506
    filled = {"Datastores": "0" * 32, "Root": "s3://bucket/lake", "Privacy": "safe", "Tps": "25"}
    assert filled.keys() <= parameters.keys()
    environment = {
        name: filled.get(value.removeprefix("Ref "), value) for name, value in given.items()
    }
    settings = Settings.from_env(environment)
    assert settings.tps == parameters["Tps"]["Default"] / 2
    assert (settings.root, settings.privacy) == (filled["Root"], parameters["Privacy"]["Default"])


def test_the_script_can_be_run() -> None:
    assert os.access(CELERY / "cluster.sh", os.X_OK)
