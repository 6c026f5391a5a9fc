"""The conditions that keep a question about some rows from reading all others."""

from __future__ import annotations

from cohortlake.history import views
from cohortlake.storage import engine


def test_a_month_long_ago_brings_in_no_month_between() -> None:
    with engine.connection() as con:
        con.execute("CREATE TEMP TABLE rows AS FROM (VALUES ('2026-05'), ('2008-01'), ('2026-05'))")
        assert views.in_months_sql(con, "rows", "col0") == "study_month IN ('2008-01', '2026-05')"
        nothing = views.in_months_sql(con, "(FROM rows WHERE false)", "col0")
        assert con.sql(f"SELECT study_month FROM (SELECT '2008-01' AS study_month) WHERE {nothing}"
                       ).fetchall() == []  # fmt: skip
