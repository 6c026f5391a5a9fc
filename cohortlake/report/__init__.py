"""A page that says what a lake holds, for those who do not ask it themselves.

Facts are gathered as counts that may be shown (`gather`, and a module for each section), and drawn
(`charts`, `page`). Reads `published/`, and the ledger where it may; writes one HTML file.
"""

from cohortlake.report.page import SUPPRESS_BELOW, write

__all__ = ["SUPPRESS_BELOW", "write"]
