"""A deployment as docs/how-to/cluster.md describes it, started with deploy/celery/cluster.sh."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.servers import LOOPBACK, REPOSITORY, free_port, is_alive, kill_group, listens, until

_SCRIPT = REPOSITORY / "deploy/celery/cluster.sh"
_LAUNCH = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
_RUN = """mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_SCHEDULES = """{ schedulesOrError(repositorySelector:
  {repositoryName: "__repository__", repositoryLocationName: "cohortlake"}) {
    ... on Schedules { results { scheduleState { id status } } } } }"""
_STOP = "mutation($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
_BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } } } }"""
_RUNS = """{ runsOrError { ... on Runs { results {
  runId status startTime endTime parentRunId tags { key value } assetSelection { path } } } } }"""
_LOGS = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  __typename ... on MessageEvent { message } } } } }"""


@dataclass
class Deployment:
    """One account: its web server, its daemon and its workers.

    Attributes:
        folder: The folder of its logs and pid files.
        settings: Its environment variables.
    """

    folder: Path
    settings: dict[str, str]
    _started: list[str] = field(default_factory=list)
    _port: int = 0
    _code_port: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self._port, self._code_port = free_port(), free_port()
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in self.settings.items())
        (self.folder / "cluster.env").write_text("".join(lines))

    def start(self, service: str, name: str = "") -> None:
        """Start a process with the deployment's script."""
        self._started.append(name or service)
        self._script("start", service, name)
        if service == "codeserver":
            until(lambda: listens(self._code_port), "the code server starts", seconds=120)
        if service == "webserver":
            until(self._answers, "the web server starts", seconds=120)
        if service == "worker":
            until(lambda: "ready." in self.log(name), f"{name} starts", seconds=60)

    def stop(self, service: str, name: str = "") -> None:
        """End a process with the deployment's script."""
        self._script("stop", service, name)

    def pid(self, name: str) -> int:
        """Return the process id of a service that was started."""
        return int((self.folder / f"{name}.pid").read_text())

    def log(self, name: str) -> str:
        """Return what a service printed."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def kill(self, name: str) -> None:
        """Kill a service and all its processes, as the loss of a machine does."""
        kill_group(self.pid(name))

    def alive(self) -> list[str]:
        """Return the services that still have a pid file of a process that runs."""
        return [
            name
            for name in self._started
            if (self.folder / f"{name}.pid").exists() and is_alive(self.pid(name))
        ]

    def end(self) -> None:
        """Kill all that is left."""
        for name in self._started:
            if (self.folder / f"{name}.pid").exists():
                self.kill(name)

    def _script(self, action: str, service: str, name: str) -> None:
        environment = os.environ | {
            "CLUSTER_ENV": str(self.folder / "cluster.env"),
            "CLUSTER_STATE": str(self.folder),
            "CLUSTER_BIN": str(Path(sys.executable).parent),
            "CLUSTER_PORT": str(self._port),
            "CLUSTER_CODE_PORT": str(self._code_port),
        }
        environment.pop("DAGSTER_HOME", None)
        subprocess.run(
            [_SCRIPT, action, service, *([name] if name else [])], env=environment, check=True
        )

    def _answers(self) -> bool:
        try:
            return bool(self.ask("{ version }"))
        except OSError:
            return False

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask Dagster's GraphQL API."""
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self._port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        data: dict[str, Any] = found["data"]
        return data

    def stop_schedules(self) -> None:
        """Stop all schedules. A tick at the full hour would take a place in the pool."""
        for schedule in self._schedules():
            if schedule["status"] == "RUNNING":
                self.ask(_STOP, id=schedule["id"])
        assert all(schedule["status"] == "STOPPED" for schedule in self._schedules())

    def _schedules(self) -> list[dict[str, str]]:
        found = self.ask(_SCHEDULES)["schedulesOrError"]["results"]
        return [schedule["scheduleState"] for schedule in found]

    def backfill(self, assets: list[str], partitions: list[str]) -> str:
        """Ask for a backfill as the UI does, and return its id."""
        params: dict[str, Any] = {"assetSelection": [{"path": [name]} for name in assets]}
        params |= {"partitionNames": partitions} if partitions else {"allPartitions": True}
        answer = self.ask(_LAUNCH, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def run(
        self, job: str, assets: list[str] | None = None, partitions: list[str] | None = None
    ) -> str:
        """Ask for a run as the UI does, and return its id."""
        selector: dict[str, Any] = {
            "repositoryLocationName": "cohortlake", "repositoryName": "__repository__",
            "jobName": job, "assetSelection": [{"path": [name]} for name in assets or []] or None,
        }  # fmt: skip
        keys = {"start": partitions[0], "end": partitions[-1]} if partitions else {}
        tags = [
            {"key": f"dagster/asset_partition_range_{end}", "value": key}
            for end, key in keys.items()
        ]
        params = {"selector": selector, "executionMetadata": {"tags": tags}}
        answer = self.ask(_RUN, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def status(self, run_id: str) -> str:
        """Return the status of a run."""
        return next(run["status"] for run in self.runs() if run["runId"] == run_id)

    def backfill_status(self, backfill_id: str) -> str:
        """Return the status of a backfill."""
        found = self.ask(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        return str(found["status"])

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, the latest first."""
        runs: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return runs

    def statuses(self) -> Counter[str]:
        """Return how many runs have which status."""
        return Counter(run["status"] for run in self.runs())

    def events(self, run_id: str) -> list[str]:
        """Return the messages of a run."""
        events = self.ask(_LOGS, id=run_id)["logsForRun"]["events"]
        return [event.get("message", "") for event in events]
