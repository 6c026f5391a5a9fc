"""The published table `patients`: some are counted anew, all others stay as they were.

A patient's image sets lie in any month, so this table has no partitions. It is one file in
the order of `patient_key`, written range by range of keys: what is counted at a time fits
into memory, however many patients there are. All that is known of these is at hand then, so it
is here that their studies are put in order (`publish.study_order`), which the months ask for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from cohortlake.privacy import Policy
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values, marts, study_order
from cohortlake.publish.writer import Writer

TABLE = "patients"
_AT_ONCE = 150_000
_FIRST, _END = "", "g"  # before and behind all keys, which are hex digits


def write(
    con: duckdb.DuckDBPyConnection,
    writer: Writer,
    policy: Policy,
    people: pa.Table,
    *,
    is_whole: bool,
) -> None:
    """Write the table.

    Args:
        con: With the views of `image_sets.register`.
        writer: Writes it.
        policy: What is done with each value.
        people: Those to count anew: datastore_id, PatientID, patient_key, shift_days.
        is_whole: Whether these are all there are; else the published file holds the others.

    Makes the temporary table `visits` of their studies, see `visits.of`.
    """
    con.execute(_VISITS)
    if not is_whole:
        writer.register_whole(con, "published_patients", TABLE)
    present = rows_sql(_MEANT, _SHOWN, policy)
    touched = f"SELECT {writer.selected(TABLE)} FROM ({_TOUCHED})"
    query = touched if is_whole else f"{touched} {_AND_OTHERS}"
    writer.write_whole(con, TABLE, _queries(con, people.sort_by("patient_key"), present, query))
    con.execute("DROP TABLE of_people")


def _queries(
    con: duckdb.DuckDBPyConnection, people: pa.Table, present: str, query: str
) -> Iterator[str]:
    """Yield the query of each range of keys; it must be run before the next one is asked for."""
    starts = range(0, max(1, len(people)), _AT_ONCE)
    bounds = [_FIRST, *(people["patient_key"][start].as_py() for start in starts[1:]), _END]
    for start, (first, end) in zip(starts, itertools.pairwise(bounds), strict=True):
        con.register("people", people[start : start + _AT_ONCE])
        con.execute(_OF_PEOPLE)
        con.register("sexes", derived_values.sexes(con, "of_people"))
        con.execute(f"CREATE OR REPLACE TEMP VIEW present AS {present}")
        yield query.format(first=first, end=end)


_VISITS = """
CREATE TEMP TABLE visits (
    patient_hash UBIGINT, study_hash UBIGINT, study_ordinal INT, days_since_previous INT
)
"""

_OF_PEOPLE = f"""
CREATE OR REPLACE TEMP TABLE of_people AS
SELECT {", ".join(marts.PATIENT_COLUMNS)}, patient_key, shift_days
FROM current JOIN people USING (datastore_id, PatientID);
INSERT INTO visits {study_order.of("of_people")};
"""

_MEANT = f"""
SELECT of_people.*, sex, {derived_values.status("sex")}
FROM of_people LEFT JOIN sexes ON {derived_values.same("sex")}
"""
# UIDs are only counted here.
_SHOWN = [name for name in marts.PATIENT_COLUMNS if not name.endswith("UID")]

# As a number: there are millions of patients, and text takes five times the memory.
_TOUCHED = marts.patients("patient_key::UUID")

_AND_OTHERS = """
UNION ALL BY NAME
SELECT * FROM published_patients ANTI JOIN people USING (patient_key)
WHERE patient_key >= '{first}' AND patient_key < '{end}'
"""
