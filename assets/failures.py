"""How a failure reaches Dagster: which are worth a retry, and what of them may be told.

Dagster keeps the text of an error in its event log, which is no restricted zone. The text
of the library's own errors holds no value of a tag. That of any other might, so only its
type and where it was raised are passed on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cohortlake import CohortlakeError
from cohortlake.errors import without_text

RETRY = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For transient errors; the library has asked the service eight times before it raises one."""


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors inside the block into `dagster.Failure`; only transient ones are retried.

    Dagster would also retry a run that somebody ended, by the policy: it would go on.
    """
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        raise dg.Failure(
            "the run was ended; what had come is kept, and the next run goes on from there",
            allow_retries=False,
        ) from None
    except CohortlakeError as error:
        raise dg.Failure(str(error), allow_retries=error.transient) from None
    except Exception as error:
        raise dg.Failure(without_text(error), allow_retries=False) from None
