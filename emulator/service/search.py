"""SearchImageSets: criteria become spans of sort keys, and spans become SQL with keyset paging.

It holds the rules of SearchImageSets that the service model does not state, the ends that BETWEEN
includes, and the nextToken. See `model` for the shape of the request, and `data.store` for tables
and indexes.

Every sort key is an integer, so a BETWEEN with any kind of ends becomes an inclusive span. A page
reads the spans along the index of the sort key, and starts after the last row of the previous page.
So every page costs the same, also deep in a million rows.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from emulator.data.store import Datastore, Store
from emulator.datetimes import DAY_US, UNSORTABLE, day_number, from_wire, time_of_day_us
from emulator.service.faults import Behaviour
from emulator.wire import encode, invalid

DEFAULT_PAGE_SIZE = 50
SELECTIVE = 2000
"""If a filter matches at most this many rows, sort them; else read along the sort key's index."""

Span = tuple[int, int]
_KEYS = {"updatedAt": "updated_ms", "createdAt": "created_ms", "DICOMStudyDateAndTime": "study_key"}
_VALUES = {
    "DICOMPatientId": "patient_id",
    "DICOMAccessionNumber": "accession_number",
    "DICOMStudyId": "study_id",
    "DICOMStudyInstanceUID": "study_uid",
    "DICOMSeriesInstanceUID": "series_uid",
    "isPrimary": "is_primary",
}
_INDEX_OF = {
    "updated_ms": "by_updated",
    "created_ms": "by_created",
    "study_key": "by_study_key",
    "patient_id": "by_patient",
    "accession_number": "by_accession",
    "study_id": "by_study_id",
    "study_uid": "by_study",
    "series_uid": "by_series",
}
_HIGHEST = 2**62


@dataclass(frozen=True)
class Between:
    """One filter on a time: its column and two ends. With EQUAL both ends are the same moment."""

    column: str
    low: int
    high: int
    exact: bool


@dataclass(frozen=True)
class Criteria:
    """The filters and the sort order of a search."""

    equal: tuple[tuple[str, object], ...]
    between: tuple[Between, ...]
    sort_field: str
    sort_order: str
    digest: str


@dataclass(frozen=True)
class Page:
    """One page: the summaries as sent, and the token of the next page if there is one."""

    summaries: list[bytes]
    next_token: str | None


def criteria_of(search_criteria: Mapping[str, Any] | None) -> Criteria:
    """Returns search criteria. `model` has checked their shape before.

    Raises:
        ServiceError: `ValidationException` if the shape allows the criteria but the service does
            not.
    """
    given = search_criteria or {}
    equal, between = [], []
    for place, item in enumerate(given.get("filters") or (), 1):
        attribute, values = _values_of(item, f"searchCriteria.filters.{place}.member")
        if attribute in _KEYS:
            between.append(_between(attribute, values))
        else:
            equal.append((_VALUES[attribute], values[0]))
    sort = given.get("sort") or {}
    return Criteria(
        tuple(equal),
        tuple(between),
        sort.get("sortField", "updatedAt"),
        sort.get("sortOrder", "DESC"),
        sha256(encode(given)).hexdigest()[:16],
    )


def search(
    store: Store,
    datastore: Datastore,
    criteria: Criteria,
    behaviour: Behaviour,
    *,
    limit: int = DEFAULT_PAGE_SIZE,
    token: str | None = None,
) -> Page:
    """Returns one page.

    Raises:
        ServiceError: `ValidationException` if the token is invalid or belongs to other criteria.
    """
    after = None if token is None else _read_token(token, datastore, criteria)
    sorted_column = _KEYS[criteria.sort_field]
    index = _driving_index(store, datastore, criteria, behaviour)
    rows: list[tuple[bytes, int, str]] = []
    for span in _spans(criteria, behaviour, sorted_column):
        if after is None or _has_rows_after(span, after[0], criteria):
            sql, parameters = statement(criteria, behaviour, span, after, index)
            parameters = [datastore.number, *parameters, limit + 1 - len(rows)]
            rows += store.query(sql, parameters)
        if len(rows) > limit:
            break
    more = len(rows) > limit
    last = rows[limit - 1] if more else None
    next_token = _write_token(datastore, criteria, last[1], last[2]) if last else None
    return Page([row[0] for row in rows[:limit]], next_token)


def statement(
    criteria: Criteria,
    behaviour: Behaviour,
    span: Span,
    after: tuple[int, str] | None,
    index: str,
) -> tuple[str, list[object]]:
    """Returns the SQL of one page within one span, and its parameters.

    The caller puts the data store before these parameters, and the limit after them.
    """
    key = _KEYS[criteria.sort_field]
    descending = criteria.sort_order == "DESC"
    conditions, parameters = _conditions(criteria, behaviour, key)
    low, high = span
    if after is not None and low <= after[0] <= high:
        # The row value replaces the passed end of the span: SQLite seeks by one bound per side.
        compare, kept, bound = ("<", ">=", low) if descending else (">", "<=", high)
        conditions += [f"({key}, image_set_id) {compare} (?, ?)", f"{key} {kept} ?"]
        parameters += [*after, bound]
    else:
        conditions.append(f"{key} BETWEEN ? AND ?")
        parameters += [low, high]
    sql = (
        f"SELECT summary, {key}, image_set_id FROM image_sets INDEXED BY {index}"  # noqa: S608
        f" WHERE datastore = ? AND searchable = 1 AND {' AND '.join(conditions)}"
        f" ORDER BY {key} {criteria.sort_order}, image_set_id {criteria.sort_order} LIMIT ?"
    )
    return sql, parameters


def _values_of(item: Mapping[str, Any], at: str) -> tuple[str, list[Any]]:
    """Returns the attribute of a filter and its values. Checks the number of values."""
    unions = [{k: v for k, v in union.items() if v is not None} for union in item["values"]]
    attributes = {name for union in unions for name in union}
    if len(attributes) != 1:
        raise invalid(f"Value at '{at}.values' must have exactly one attribute")
    attribute = attributes.pop()
    operator, values = item["operator"], [union[attribute] for union in unions]
    if operator == "BETWEEN" and attribute not in _KEYS:
        raise invalid(f"Value at '{at}.operator': BETWEEN takes {', '.join(_KEYS)}")
    expected = 2 if operator == "BETWEEN" else 1
    if len(values) != expected:
        raise invalid(f"Value at '{at}.values': {operator} takes {expected}, not {len(values)}")
    return attribute, values


def _between(attribute: str, values: Sequence[Any]) -> Between:
    keys = [_key(attribute, value) for value in values]
    if keys[0] > keys[-1]:
        raise invalid(f"BETWEEN on {attribute}: the first value must not be later than the second")
    return Between(_KEYS[attribute], keys[0], keys[-1], exact=len(keys) == 1)


def _key(attribute: str, value: Any) -> int:
    if attribute != "DICOMStudyDateAndTime":
        return from_wire(value)
    day = day_number(value["DICOMStudyDate"])
    time = value.get("DICOMStudyTime")
    # An absent time means 00:00 at both ends of BETWEEN.
    time_us = 0 if time is None else time_of_day_us(time)
    if day is None or time_us is None:
        raise invalid("DICOMStudyDateAndTime takes a date as yyyyMMdd and a time as HHmmss.FFFFFF")
    return day * DAY_US + time_us


def _span(between: Between, behaviour: Behaviour) -> Span:
    if between.exact:
        return between.low, between.high
    return (
        between.low + (behaviour.between in ("open", "exclusive-start")),
        between.high - (behaviour.between in ("open", "half-open")),
    )


def _column_spans(between: Between, behaviour: Behaviour) -> list[Span]:
    spans = [_span(between, behaviour)]
    if between.column == "study_key" and behaviour.undated_match:
        spans.insert(0, (UNSORTABLE, UNSORTABLE))
    return spans


def _spans(criteria: Criteria, behaviour: Behaviour, key: str) -> list[Span]:
    """Returns the spans of the sort key that a search covers, in the order of the search."""
    hides_undated = key == "study_key" and not behaviour.undated_sort
    spans = [(0 if hides_undated else UNSORTABLE, _HIGHEST)]
    for between in criteria.between:
        if between.column == key:
            others = _column_spans(between, behaviour)
            spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in others]
    spans = [span for span in spans if span[0] <= span[1]]
    return spans[::-1] if criteria.sort_order == "DESC" else spans


def _has_rows_after(span: Span, key: int, criteria: Criteria) -> bool:
    return span[0] <= key if criteria.sort_order == "DESC" else span[1] >= key


def _conditions(
    criteria: Criteria, behaviour: Behaviour, key: str
) -> tuple[list[str], list[object]]:
    """Returns the conditions of all filters, except those on the sort key."""
    conditions = [f"{column} = ?" for column, _ in criteria.equal]
    parameters = [value for _, value in criteria.equal]
    for between in criteria.between:
        if between.column != key:
            spans = _column_spans(between, behaviour)
            either = " OR ".join([f"{between.column} BETWEEN ? AND ?"] * len(spans))
            conditions.append(f"({either})")
            parameters += [end for span in spans for end in span]
    return conditions, parameters


def _driving_index(
    store: Store, datastore: Datastore, criteria: Criteria, behaviour: Behaviour
) -> str:
    """Returns the index that reads the fewest rows: of a selective filter, else of the sort key."""
    sort_index = _INDEX_OF[_KEYS[criteria.sort_field]]
    fewest, best = SELECTIVE + 1, sort_index
    for column, condition, parameters in _candidates(criteria, behaviour):
        index = _INDEX_OF[column]
        if index == sort_index:
            continue
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM image_sets INDEXED BY {index}"  # noqa: S608
            f" WHERE datastore = ? AND searchable = 1 AND {condition} LIMIT ?)"
        )
        found = store.query(sql, [datastore.number, *parameters, fewest])[0][0]
        if found < fewest:
            fewest, best = found, index
    return best


def _candidates(
    criteria: Criteria, behaviour: Behaviour
) -> list[tuple[str, str, tuple[object, ...]]]:
    equal = [(c, f"{c} = ?", (value,)) for c, value in criteria.equal if c in _INDEX_OF]
    spans = [
        (b.column, f"{b.column} BETWEEN ? AND ?", _span(b, behaviour))
        for b in criteria.between
        if len(_column_spans(b, behaviour)) == 1
    ]
    return [*equal, *spans]


@lru_cache
def _scope(datastore: Datastore, criteria_digest: str) -> str:
    """Returns the scope of a token: one data store and one set of criteria."""
    return sha256(f"{datastore.id}/{criteria_digest}".encode()).hexdigest()[:16]


def _write_token(datastore: Datastore, criteria: Criteria, key: int, image_set_id: str) -> str:
    parts = f"{_scope(datastore, criteria.digest)}/{key}/{image_set_id}"
    return urlsafe_b64encode(parts.encode()).decode()


def _read_token(token: str, datastore: Datastore, criteria: Criteria) -> tuple[int, str]:
    try:
        scope, key, image_set_id = urlsafe_b64decode(token).decode().split("/", 2)
        if scope == _scope(datastore, criteria.digest):
            return int(key), image_set_id
    except ValueError:
        pass
    raise invalid("The nextToken does not belong to this search; start the search again without it")
