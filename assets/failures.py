"""How a failure reaches Dagster: which are retried, and which text is passed on.

Dagster keeps the text of an error in its event log, which is not a restricted zone. The library's
own errors hold no value of a tag. Any other error might, so only its type and the place where it
was raised are passed on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cohortlake import CohortlakeError
from cohortlake.errors import without_text

RETRY = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For transient errors. The library has tried eight times before it raises one."""


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors inside the block into `dagster.Failure`; only transient ones are retried.

    Without this, the retry policy would start a run again that somebody ended.
    """
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        raise dg.Failure(
            "somebody ended the run; what had come is kept, and the next run goes on from there",
            allow_retries=False,
        ) from None
    except CohortlakeError as error:
        raise dg.Failure(str(error), allow_retries=error.transient) from None
    except Exception as error:
        raise dg.Failure(without_text(error), allow_retries=False) from None
