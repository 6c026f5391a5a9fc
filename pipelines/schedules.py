"""The schedules: when the jobs run by themselves.

A schedule asks for one run that names no partitions. When that run starts, the lake's coverage
and the service's clock decide which windows are due. So missed ticks do not matter, and neither
does what Dagster remembers of earlier runs.
"""

import dagster as dg

from cohortlake import Settings

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def _every(cron_schedule: str, job_name: str, *, is_on: bool = True) -> dg.ScheduleDefinition:
    """Schedule a job. If it is not on, somebody may start the schedule in the UI."""

    @dg.schedule(
        name=job_name,
        job_name=job_name,
        cron_schedule=cron_schedule,
        execution_timezone="UTC",
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED
        ),
    )
    def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return unless_unfinished(context.instance, job_name)

    return request


def unless_unfinished(instance: dg.DagsterInstance, job_name: str) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run of a job, unless an earlier one waits or is at work."""
    unfinished = dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED)
    if instance.get_runs_count(unfinished):
        return dg.SkipReason(f"an earlier run of {job_name} has not finished")
    return dg.RunRequest()


SCHEDULES = [
    _every("0 * * * *", "tick"),
    _every("15 2 * * 0", "reconcile"),
    _every("45 2 * * 0", "reconcile_undated"),
    _every("15 4 * * 0", "maintain"),
    _every("30 3 * * *", "headers", is_on=bool(Settings.from_env().headers)),
]
