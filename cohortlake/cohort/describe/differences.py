"""Standardised mean differences between groups, the columns `SMD` of Table 1.

The definition is that of the library `tableone` and of R's: Cohen's d for numbers, and the distance
of Yang and Dalton (2012) for shares. tableone prints a number such as 1.5e8 where a difference is
undefined, and none where a value occurs in a third group only. So it is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

MOST_GROUPS = 3
"""The most groups of which each pair gets a column. More columns do not fit on a page."""


def differences(
    frame: pd.DataFrame, by: str, groups: Sequence[str], variables: Mapping[str, bool]
) -> pd.DataFrame:
    """Return the differences between groups.

    Args:
        frame: The members.
        by: The column with the groups.
        groups: Its values, in the order of the table.
        variables: Column -> whether it holds numbers.

    Returns:
        A row for each variable and a column for each pair, NaN where a difference is undefined.
    """
    own = {group: frame[frame[by] == group] for group in groups}
    return pd.DataFrame(
        {
            f"SMD ({one},{other})": {
                name: (of_numbers if is_number else of_shares)(own[one][name], own[other][name])
                for name, is_number in variables.items()
            }
            for one, other in combinations(groups, 2)
        },
        index=list(variables),
        dtype=float,
    )


def of_numbers(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    """Return the difference of two means in standard deviations; NaN if nothing varies."""
    deviation = np.sqrt((one.var() + other.var()) / 2)
    return float((other.mean() - one.mean()) / deviation) if deviation > 0 else np.nan


def of_shares(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    """Return the distance of the shares of values; NaN if there is one value, or none in common."""
    shares = pd.concat([s.value_counts(normalize=True) for s in (one, other)], axis=1)
    shares = shares.fillna(0).sort_index()
    in_both = (shares > 0).all(axis=1)
    if len(shares) < 2 or not in_both.any():
        return np.nan
    first, second = (shares.iloc[1:, place].to_numpy() for place in (0, 1))
    covariance = sum(np.diag(p) - np.outer(p, p) for p in (first, second)) / 2
    apart = second - first
    return float(np.sqrt(apart @ np.linalg.solve(covariance, apart)))
