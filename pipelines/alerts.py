"""The sensors that tell people of failed runs, of failing checks, and of what is wrong with a lake.

They send to COHORTLAKE_NOTIFY, and do nothing without it. See `cohortlake.admin.alerts` for what a
message holds. Each says something once, and once more when it is over.
"""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from cohortlake import Settings, Sync
from cohortlake.admin import alerts
from cohortlake.admin.diagnosis import Diagnosis, Verdict, diagnose

_SILENT = dg.SkipReason("COHORTLAKE_NOTIFY is not set")
_WITHIN = timedelta(hours=30)
"""How far coverage may fall behind. A day without changes is proven only after it ends."""
_IN_PROGRESS = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
_SEVERE = (Verdict.DAMAGED, Verdict.MISCONFIGURED)
"""What no run in progress explains."""


@dg.run_failure_sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells COHORTLAKE_NOTIFY of each run that failed after its retries.",
)
def failed_run(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Send an alert on a failed run."""
    targets = Settings.from_env().notify
    if not targets:
        return _SILENT
    steps = sorted({event.step_key or "" for event in context.get_step_failure_events()} - {""})
    run = context.dagster_run
    alerts.send(targets, alerts.of_failed_run(run.job_name, run.run_id, steps))
    return None


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells COHORTLAKE_NOTIFY when an asset check begins to fail, and when all pass.",
)
def failing_checks(
    context: dg.SensorEvaluationContext, sync: dg.ResourceParam[Sync]
) -> dg.SkipReason:
    """Send an alert when other checks fail than before."""
    if not sync.settings.notify:
        return _SILENT
    keys = context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()
    store = context.instance.event_log_storage
    latest = store.get_latest_asset_check_execution_by_key(list(keys))
    failing = sorted(
        f"{key.asset_key.to_user_string()}: {key.name}"
        for key, record in latest.items()
        if record.evaluation and _is_failed(record.evaluation)
    )
    if failing != json.loads(context.cursor or "[]"):
        alerts.send(sync.settings.notify, alerts.of_failed_checks(failing))
        context.update_cursor(json.dumps(failing))
    return dg.SkipReason(f"{len(failing)} checks fail")


@dg.sensor(
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells COHORTLAKE_NOTIFY what is wrong with the lake, as `cohortlake status` does.",
)
def state_of_lake(
    context: dg.SensorEvaluationContext, sync: dg.ResourceParam[Sync]
) -> dg.SkipReason:
    """Send an alert when other things are wrong than before, at two looks in a row."""
    if not sync.settings.notify:
        return _SILENT
    found = diagnose(sync.root, sync.settings, since=datetime.now(UTC) - _WITHIN)
    if context.instance.get_runs_count(_IN_PROGRESS):
        severe = tuple(finding for finding in found.findings if finding.verdict in _SEVERE)
        found = Diagnosis(severe, found.status)
    cursor = json.loads(context.cursor or '{"seen": [], "told": []}')
    seen = sorted({finding.kind for finding in found.findings})
    if seen == cursor["seen"] != cursor["told"]:
        alerts.send(sync.settings.notify, alerts.of_diagnosis(found))
        cursor["told"] = seen
    context.update_cursor(json.dumps(cursor | {"seen": seen}))
    return dg.SkipReason(str(found.verdict))


def _is_failed(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Return whether a check fails. A warning, as of values that are no dates, is no alert."""
    return not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR


ALERTS = [failed_run, failing_checks, state_of_lake]
