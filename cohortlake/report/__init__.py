"""The report: one HTML page on what a lake holds, for people who do not query it.

Each section counts what may be shown (`gather` calls them), and `charts` and `page` draw it. Reads
`published/`, and coverage if it may; writes one HTML file.
"""

from cohortlake.report.page import SUPPRESS_BELOW, write

__all__ = ["SUPPRESS_BELOW", "write"]
