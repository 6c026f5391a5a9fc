"""The pandas side of flatten: Arrow-backed dtypes, so that no null becomes a float."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a frame whose dtypes are `pandas.ArrowDtype`, one per column of the table."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
