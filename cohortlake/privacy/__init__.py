"""Which columns a reader may see, and how ids are made safe. Pure: reads and writes no file."""

from cohortlake.privacy.keys import keyed_hashes, new_key
from cohortlake.privacy.policy import visible

__all__ = ["keyed_hashes", "new_key", "visible"]
