"""The sensor: runs the job `hints` when events wait in the queue.

The sensor only asks the queue how many messages wait. A sensor has a minute, and a message that
it received itself would be hidden from the run until its visibility timeout. The run receives them.
"""

import dagster as dg

from cohortlake import Sync
from cohortlake.hints import count_waiting
from pipelines.jobs import hints
from pipelines.schedules import unless_unfinished


@dg.sensor(
    job_name=hints.name,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Runs `hints` when events wait in COHORTLAKE_EVENTS_QUEUE.",
)
def queue_of_events(
    context: dg.SensorEvaluationContext, sync: dg.ResourceParam[Sync]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when there are messages."""
    if not sync.settings.events_queue:
        return dg.SkipReason("COHORTLAKE_EVENTS_QUEUE is not set")
    if not count_waiting(sync):
        return dg.SkipReason("no events wait")
    return unless_unfinished(context.instance, hints.name)


SENSORS = [queue_of_events]
