"""The steps of the image of deploy/kubernetes, run in an empty folder, because no engine is here.

The steps that need root in a container (`useradd`) are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.servers import REPOSITORY

pytestmark = pytest.mark.cluster

KUBERNETES = REPOSITORY / "deploy/kubernetes"


def steps() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each on one line."""
    text = (KUBERNETES / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [
        (instruction, rest)
        for instruction, _, rest in (line.partition(" ") for line in lines)
        if instruction and not instruction.startswith("#")
    ]


def test_the_steps_of_the_image_make_a_code_location(tmp_path: Path) -> None:
    folder, home = tmp_path / "image", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COHORTLAKE_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV"))
    } | {"PATH": f"{tmp_path}/python/bin:{os.environ['PATH']}", "DAGSTER_HOME": str(home)}
    ran = 0
    for instruction, rest in steps():
        if instruction == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(REPOSITORY / source, folder / target, is_folder=target.endswith("/"))
        if instruction == "RUN" and rest.startswith("python "):
            subprocess.run(rest, shell=True, cwd=folder, env=environment, check=True)  # noqa: S602
            ran += 1
    assert ran == 2
    values = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    command = ["dagster", "definitions", "validate", *deployment["dagsterApiGrpcArgs"]]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    subprocess.run(
        ["python", "-c", JOB, json.dumps(values["runLauncher"]["config"]["k8sRunLauncher"])],
        cwd=folder, env=environment, check=True,
    )  # fmt: skip
    shown = subprocess.run(
        ["cohortlake", "--help"], cwd=home, env=environment, check=True, capture_output=True
    )
    assert b"sync" in shown.stdout


JOB = """
import json, sys
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

launcher = json.loads(sys.argv[1])["runK8sConfig"]
snake = {"containerConfig": "container_config", "podSpecConfig": "pod_spec_config",
         "jobSpecConfig": "job_spec_config"}
context = K8sContainerContext.create_from_config(
    {"k8s": {"run_k8s_config": {snake[name]: value for name, value in launcher.items()}}}
)
job = construct_dagster_k8s_job(
    DagsterK8sJobConfig(job_image="image", dagster_home="/home"), ["run"], "job",
    user_defined_k8s_config=context.run_k8s_config,
)
spec = ApiClient().sanitize_for_serialization(job)["spec"]
pod = spec["template"]["spec"]
assert pod["containers"][0]["volumeMounts"][-1]["name"] == pod["volumes"][-1]["name"] == "spill"
assert pod["securityContext"]["runAsUser"] == 10001
assert spec["ttlSecondsAfterFinished"] == 86400
assert pod["containers"][0]["resources"]["limits"]["memory"] == "4Gi"
"""


def copy(source: Path, target: Path, *, is_folder: bool) -> None:
    """Copy as COPY does."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target / source.name if is_folder else target)
