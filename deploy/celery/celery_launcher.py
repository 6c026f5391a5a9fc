"""Dagster's Celery launcher, which also notices that a worker is gone.

`CeleryRunLauncher` believes the last state that a worker wrote. A killed worker wrote STARTED, so
its run would stay STARTED until its time limit. This launcher asks the workers instead.
"""

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

_ATTEMPTS = 3
_SECONDS_TO_ANSWER = 5


class AttentiveCeleryRunLauncher(CeleryRunLauncher):
    """Launches runs as Celery tasks, and reports a run as failed if no worker has it."""

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask all workers for the task of a run that Dagster believes to be at work."""
        task_id = run.tags[DAGSTER_CELERY_TASK_ID_TAG]
        for _ in range(_ATTEMPTS):
            inspect = self.celery.control.inspect(timeout=_SECONDS_TO_ANSWER)
            answers = inspect.query_task(task_id) or {}
            if any(task_id in tasks for tasks in answers.values()):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "no worker has this run; its worker died")
