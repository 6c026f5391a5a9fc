"""Turns Arrow tables into pandas frames with Arrow dtypes, so that no null becomes a float."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a frame whose dtypes are `pandas.ArrowDtype`, one per column of the table."""
    import pandas as pd  # 50 MB, and opening a lake makes no frame

    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
