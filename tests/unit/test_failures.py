"""One data store that fails holds up no other; the message names each, and why."""

from __future__ import annotations

import pytest

from cohortlake.errors import (
    AccessDenied,
    CohortlakeError,
    DeletionsRefused,
    NoCredentials,
    NoSuchDatastore,
    RootNotUsable,
    SearchedByOthers,
    ServiceUnavailable,
    SeveralFailed,
    Stopped,
)
from cohortlake.failures import Failures

UNKNOWN, DENIED = NoSuchDatastore("a", "us-east-1"), AccessDenied("X:Y", "data store b")
GONE = DeletionsRefused({"d": {"2025-03": 20}})


def _failures(*errors: tuple[str, CohortlakeError]) -> Failures:
    failures = Failures()
    for datastore_id, error in errors:
        with failures.of(datastore_id):
            raise error
    return failures


def test_nothing_is_raised_where_nothing_failed() -> None:
    failures = Failures()
    with failures.of("a"):
        pass
    failures.raise_all()
    assert failures.datastores == set()


def test_one_failure_is_raised_as_it_is() -> None:
    failures = _failures(("a", UNKNOWN))
    with pytest.raises(NoSuchDatastore, match=r"^no data store a in region"):
        failures.raise_all()
    assert failures.datastores == {"a"}


def test_a_message_that_names_no_data_store_gets_its_name() -> None:
    with pytest.raises(ServiceUnavailable, match=r"^data store c1: SearchImageSets kept failing$"):
        _failures(("c1", ServiceUnavailable("SearchImageSets kept failing"))).raise_all()


def test_several_are_all_named() -> None:
    busy = SearchedByOthers("c1")
    failures = _failures(("a", UNKNOWN), ("b", DENIED), ("c1", busy))
    failures.add(GONE)
    with pytest.raises(SeveralFailed) as raised:
        failures.raise_all()
    first, *others = str(raised.value).splitlines()
    assert first.startswith("4 things went wrong")
    assert others == [f"- {UNKNOWN}", f"- {DENIED}", f"- {busy}", f"- {GONE}"]


@pytest.mark.parametrize(
    ("errors", "transient", "exit_code"),
    [
        ([ServiceUnavailable("x"), SearchedByOthers("y")], True, 4),
        ([ServiceUnavailable("x"), UNKNOWN], False, 3),
        ([GONE, ServiceUnavailable("x"), UNKNOWN], False, 5),
    ],
)
def test_it_is_transient_only_if_all_are(
    errors: list[CohortlakeError], transient: bool, exit_code: int
) -> None:
    several = SeveralFailed(errors)
    assert (several.transient, several.exit_code) == (transient, exit_code)


@pytest.mark.parametrize(
    "error", [NoCredentials("none"), Stopped(), RootNotUsable("disk full"), OSError()]
)
def test_what_concerns_all_of_them_ends_the_run(error: Exception) -> None:
    with pytest.raises(type(error)), Failures().of("a"):
        raise error
