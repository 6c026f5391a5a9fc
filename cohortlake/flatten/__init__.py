"""Pages of summaries become typed columns: nothing dropped, every odd value counted."""

from cohortlake.flatten.frame import to_frame
from cohortlake.flatten.quality import invalid_values
from cohortlake.flatten.table import flatten_pages, flatten_summaries, read_again

__all__ = ["flatten_pages", "flatten_summaries", "invalid_values", "read_again", "to_frame"]
