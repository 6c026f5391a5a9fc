"""Names that queries and files of cohorts use themselves. No outside table may have one."""

FROZEN_COLUMNS = ("member_digest", "member_salt", "erased_on", "frozen_image_sets")
"""Columns that a file of frozen members has beside the values of the members."""

COLUMNS = frozenset((*FROZEN_COLUMNS, "few", "members", "patients", "series_id", "split"))
"""Columns that stand beside those of members, in a file or in a count."""

TABLES = frozenset(
    (
        "after",
        "before",
        "differing",
        "frozen_image_sets",
        "in_the_lake",
        "pinned",
        "present",
        "study_order",
    )
)
"""Relations in queries of cohorts. Others are the stages: `step_1`, `step_2` and so on."""
