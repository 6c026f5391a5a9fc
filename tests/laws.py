"""What property tests share: how many examples a slow law gets, and values of JSON.

A law gets few examples in `make test`, and all in `make laws` and `make chaos`.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st


def examples(thorough: int, quick: int) -> int:
    """Return the number of examples for the profile that is loaded."""
    return thorough if settings.get_current_profile_name() == "thorough" else quick


def json_values(max_leaves: int) -> st.SearchStrategy[object]:
    """Return a strategy of values that JSON can hold, nested in lists and objects."""
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=max_leaves,
    )
