"""The image sets of frozen members, each with the version that was frozen.

A member's values say nothing about its pixels. So a frozen member also has a list of the image sets
of its series, those that represent them in `series`. A later version may have other pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.cohort.freeze import compare, digest
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected

VERSION_CHANGED, GONE = "version changed", "gone"

_IMAGE_SET = pa.schema(
    [("datastore_id", pa.string()), ("image_set_id", pa.string()), ("version", pa.int64())]
)
_NAMES = ", ".join(_IMAGE_SET.names)


def with_image_sets(selected: Selected, members: pa.Table) -> pa.Table:
    """Add to each member the image sets of its series, as a list in one column.

    Args:
        selected: The cohort.
        members: Its members. They are returned unchanged if the policy hides versions.
    """
    if "version" not in selected.tables.columns("image_sets"):
        return members
    keys = compare.KEYS[selected.criteria.level]
    found = selected.ask(f"""
        SELECT {", ".join(keys)}, list(struct_pack({_NAMES}) ORDER BY {_NAMES}) AS image_sets
        FROM (SELECT DISTINCT {", ".join(dict.fromkeys((*keys, *_IMAGE_SET.names[:2])))}
              FROM {selected.query.last})
        JOIN (SELECT {_NAMES} FROM image_sets) USING (datastore_id, image_set_id)
        GROUP BY {", ".join(keys)}
    """).to_arrow()
    of_member = dict(zip(_rows(found, keys), found["image_sets"].to_pylist(), strict=True))
    own = members
    if "series_id" in keys:
        series_id = pc.coalesce(members["SeriesInstanceUID"], members["image_set_id"])
        own = members.append_column("series_id", series_id)
    lists = [of_member.get(key, []) for key in _rows(own, keys)]
    return members.append_column(
        digest.IMAGE_SETS, pa.array(lists, pa.list_(pa.struct(list(_IMAGE_SET))))
    )


def frozen(members: pa.Table) -> pa.Table:
    """Return the image sets of frozen members, one row each: the columns of a version.

    Erased members have none.
    """
    lists = members[digest.IMAGE_SETS].combine_chunks()
    return pa.Table.from_struct_array(lists.flatten()).cast(_IMAGE_SET)


def differing(tables: OpenedTables, members: pa.Table) -> pa.Table:
    """Return the frozen image sets that are not the same any more.

    Args:
        tables: The opened tables to compare with.
        members: Frozen members.

    Returns:
        One row each: what (version changed or gone), datastore_id, image_set_id, frozen_version,
        and version, which is null where the image set is gone.
    """
    tables.connection.register("frozen_image_sets", frozen(members))
    try:
        return tables.sql(f"""
            SELECT CASE WHEN now.version IS NULL THEN '{GONE}' ELSE '{VERSION_CHANGED}' END AS what,
                   datastore_id, image_set_id, f.version AS frozen_version, now.version
            FROM frozen_image_sets f LEFT JOIN image_sets now USING (datastore_id, image_set_id)
            WHERE now.version IS DISTINCT FROM f.version ORDER BY ALL
        """).to_arrow()
    finally:
        tables.connection.unregister("frozen_image_sets")


def _rows(table: pa.Table, names: Iterable[str]) -> list[tuple[str, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
