"""Settings of the Celery workers. `dagster_celery.app` imports a module of this name."""

import os

_DAY_SECONDS = 24 * 3600
# The longest run in pipelines/jobs.py takes 7 days.
_LONGER_THAN_ANY_RUN = 8 * _DAY_SECONDS

broker_url = os.environ["DAGSTER_CELERY_BROKER"]
result_backend = broker_url
broker_connection_retry_on_startup = True

# Each worker takes one run, and no second one while it is busy: another worker may be free.
worker_concurrency = 1
worker_prefetch_multiplier = 1
task_acks_late = True

# Each run gets a new process, so that it starts with empty memory.
worker_max_tasks_per_child = 1

# Redis delivers a message again if it is not acknowledged in time, and forgets results.
broker_transport_options = {"visibility_timeout": _LONGER_THAN_ANY_RUN}
result_expires = _LONGER_THAN_ANY_RUN
