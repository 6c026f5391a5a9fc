"""What each privacy policy does with each column.

A policy is chosen by name (COHORTLAKE_PRIVACY):

- `safe`: no direct identifier, no date and no instant as it was, UIDs replaced, of coded values
  the standard's own, of free text what a person has reviewed and allowed;
- `limited`: a HIPAA limited data set (45 CFR 164.514(e)): dates, times and UIDs stay, direct
  identifiers do not;
- `identified`: everything.

A file (COHORTLAKE_PRIVACY_FILE) may narrow one of them, and list reviewed values. A file that
widens it takes effect only under a name of its own, which the setting must give. See `schema` for
how far a column identifies a person, and `privacy.treatments` for how a value is made safe.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from cohortlake import schema
from cohortlake.errors import PolicyError, SettingError, did_you_mean
from cohortlake.schema import Column, Identifies
from cohortlake.settings import POLICIES, Settings


class Treatment(Enum):
    """What is done with a column, in the words of a policy file."""

    KEEP = "keep"
    TERMS = "terms"  # the standard's terms and reviewed values stay, all else is null
    REVIEWED = "reviewed"  # reviewed values stay, all else is null
    SHORT = "short"  # numbers of up to five digits stay, all else is null
    REPLACE = "replace"  # by a UID that follows from the key
    SHIFT = "shift"
    YEAR = "year"
    WITHHOLD = "withhold"

    @property
    def meaning(self) -> str:
        """What it does, in a few words."""
        return _MEANINGS[self]


_MEANINGS = {
    Treatment.KEEP: "shown",
    Treatment.TERMS: "the standard's terms and reviewed values",
    Treatment.REVIEWED: "reviewed values",
    Treatment.SHORT: "numbers of up to five digits",
    Treatment.REPLACE: "replaced, under a key",
    Treatment.SHIFT: "shifted, under another name",
    Treatment.YEAR: "its year, under another name",
    Treatment.WITHHOLD: "not shown",
}

_K, _W = Treatment.KEEP, Treatment.WITHHOLD

_TREATMENTS: dict[Identifies, tuple[Treatment, Treatment, Treatment]] = {
    Identifies.NO: (_K, _K, _K),
    Identifies.INDIRECTLY: (_K, _K, _K),
    Identifies.INTERVAL: (_K, _K, _K),
    Identifies.DATE: (Treatment.SHIFT, _K, _K),
    Identifies.CALENDAR: (_K, _K, _K),
    Identifies.INSTANT: (_W, _K, _K),
    Identifies.UID: (Treatment.REPLACE, _K, _K),
    Identifies.NUMBER: (Treatment.SHORT, Treatment.SHORT, _K),
    Identifies.CODED: (Treatment.TERMS, Treatment.TERMS, _K),
    Identifies.FREE_TEXT: (Treatment.REVIEWED, Treatment.REVIEWED, _K),
    Identifies.AS_SENT: (_W, _W, _K),
    Identifies.BIRTH_DATE: (_W, _K, _K),
    Identifies.DIRECTLY: (_W, _W, _K),
}

# The treatments that a file may choose, from the widest to the narrowest.
_CHOICES: dict[Identifies, tuple[Treatment, ...]] = {
    Identifies.DATE: (),  # all dates alike: see `dates`
    Identifies.UID: (_K, Treatment.REPLACE, _W),
    Identifies.NUMBER: (_K, Treatment.SHORT, _W),
    Identifies.CODED: (_K, Treatment.TERMS, Treatment.REVIEWED, _W),
    Identifies.FREE_TEXT: (_K, Treatment.REVIEWED, _W),
}
_DATES = (_K, Treatment.SHIFT, Treatment.YEAR)
_ENTRIES = ("policy", "extends", "dates", "columns", "allow")

# The columns that identify a row and join the tables.
_NEVER_WITHHELD = frozenset(
    ("datastore_id", "image_set_id", "patient_key", "StudyInstanceUID", "SeriesInstanceUID")
)


@dataclass(frozen=True)
class Policy:
    """What is done with each column.

    Attributes:
        name: Its name.
        extends: The built-in policy that it is, or that it changes.
        dates: The treatment of all dates: kept, shifted, or cut to their year.
        columns: Column -> its treatment, where it differs from the built-in policy.
        allowed: Column -> values that a person reviewed.
    """

    name: str
    extends: str
    dates: Treatment
    columns: Mapping[str, Treatment] = field(default_factory=dict)
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def treatment(self, column: Column) -> Treatment:
        """Return what is done with a column."""
        names = (column.name, schema.TEXT_OF_LIST.get(column.name, column.name))
        if given := [self.columns[name] for name in names if name in self.columns]:
            return max(given, key=_narrowness)  # a text shows no more than its list
        if column.identifies is Identifies.DATE:
            return self.dates
        # The days between studies, together with their years, can reveal a date. The year itself
        # stands in the place of the date.
        hidden = (Identifies.INTERVAL, Identifies.CALENDAR)
        if column.identifies in hidden and self.dates is Treatment.YEAR:
            return Treatment.WITHHOLD
        return _base(column, self.extends)

    @property
    def partition(self) -> Column:
        """The column that the published tables are partitioned by."""
        by_dates = {
            Treatment.KEEP: schema.STUDY_MONTH,
            Treatment.SHIFT: schema.SHIFTED_YEAR,
            Treatment.YEAR: schema.STUDY_YEAR,
        }
        return by_dates[self.dates]

    def shown_as(self, column: Column) -> Column | None:
        """Return the published column for a column of the schema, or None if it is withheld."""
        if column not in self._shown_as:  # a publication asks thousands of times
            self._shown_as[column] = self._find_shown(column)
        return self._shown_as[column]

    @functools.cached_property
    def _shown_as(self) -> dict[Column, Column | None]:
        return {}

    def _find_shown(self, column: Column) -> Column | None:
        if column == schema.STUDY_MONTH:
            return self.partition
        if column == schema.WITHHELD_FIELDS:
            return column if self.by_value else None
        match self.treatment(column):
            case Treatment.WITHHOLD:
                return None
            case Treatment.REVIEWED if not self.allowed.get(column.name):
                return None  # a column without values would look as if nothing had been sent
            case Treatment.SHIFT:
                return schema.shifted(column)
            case Treatment.YEAR:
                return schema.year_of(column)
        return column

    def shown(self, columns: Iterable[Column]) -> tuple[Column, ...]:
        """Return the published columns for columns of the schema, in their order."""
        found = (self.shown_as(column) for column in columns)
        return tuple(column for column in found if column)

    @functools.cached_property
    def by_value(self) -> tuple[str, ...]:
        """The columns of which some values are shown; the others are null."""
        return tuple(
            column.name
            for column in schema.STATE
            if self.treatment(column) in BY_VALUE and self.shown_as(column)
        )

    @property
    def replaced(self) -> tuple[str, ...]:
        """The columns whose values are replaced under the key."""
        return tuple(c.name for c in schema.STATE if self.treatment(c) is Treatment.REPLACE)

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Published table -> the names of its columns."""
        return {
            table: tuple(column.name for column in self.shown(columns))
            for table, columns in schema.PUBLISHED.items()
        }

    @property
    def widened(self) -> tuple[str, ...]:
        """The columns, and `dates`, of which it shows more than the policy that it extends."""
        base = {c.name: _base(c, self.extends) for c in _published_columns().values()}
        wider = [
            name
            for name, treatment in self.columns.items()
            if _narrowness(treatment) < _narrowness(base[name])
        ]
        is_wider = self.dates is Treatment.KEEP and self.extends == "safe"
        return tuple(sorted(wider)) + (("dates",) if is_wider else ())

    @property
    def digest(self) -> str:
        """A hash of all treatments. If it changes, everything is published again."""
        columns = {name: treatment.value for name, treatment in self.columns.items()}
        allowed = {column: sorted(values) for column, values in self.allowed.items()}
        content = [self.extends, self.dates.value, columns, allowed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def built_in(name: str, dates: str = "") -> Policy:
    """Return a built-in policy.

    Args:
        name: `safe`, `limited` or `identified`.
        dates: How `safe` treats dates: `shift`, the default, or `year`.
    """
    return Policy(name, name, Treatment(dates or "shift") if name == "safe" else Treatment.KEEP)


def policy_of(settings: Settings) -> Policy:
    """Return the policy that the settings name; `safe` if they name none.

    Raises:
        SettingError: There is no policy of that name.
        PolicyError: The file cannot be used, or widens a policy under that policy's own name.
    """
    name = settings.privacy or "safe"
    if not settings.privacy_file:
        _require_known(name, ())
        return built_in(name, settings.safe_dates)
    policy = _from_file(Path(settings.privacy_file), settings.safe_dates)
    if name == policy.name:
        return policy
    _require_known(name, (policy.name,))
    if policy.widened or name != policy.extends:
        raise PolicyError(
            f"{settings.privacy_file} makes the policy {policy.name!r} of {policy.extends!r}"
            f"{_widening(policy)}; set COHORTLAKE_PRIVACY={policy.name} to publish under it"
        )
    return policy


def _require_known(name: str, more: tuple[str, ...]) -> None:
    known = (*POLICIES, *more)
    if name not in known:
        raise SettingError(
            f"COHORTLAKE_PRIVACY must be one of {', '.join(known)}, not {name!r}"
            f"{did_you_mean(name, known)}; another name is that of a COHORTLAKE_PRIVACY_FILE"
        )


def _widening(policy: Policy) -> str:
    return f" and shows more of {', '.join(policy.widened)}" if policy.widened else ""


def _from_file(path: Path, safe_dates: str) -> Policy:
    import yaml  # few lakes have such a file

    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PolicyError(f"{path} is not YAML; docs/how-to/privacy.md shows one") from None
    if not isinstance(document, dict):
        raise PolicyError(f"{path} holds no entries; docs/how-to/privacy.md shows some")
    _require_among(path, document, _ENTRIES)
    name, extends = document.get("policy"), document.get("extends", "safe")
    if extends not in POLICIES:
        raise PolicyError(f"{path}: `extends` is one of {', '.join(POLICIES)}")
    if not isinstance(name, str) or not name.isidentifier() or name in POLICIES:
        raise PolicyError(
            f"{path}: `policy` is its name, of letters, digits and underscores, and not one of "
            f"{', '.join(POLICIES)}"
        )
    base = built_in(extends, safe_dates)
    columns = {
        column: _choice(path, column, wanted)
        for column, wanted in _mapping(path, document, "columns")
    }
    dates = _choice_of(path, "dates", document.get("dates", base.dates.value), _DATES)
    policy = Policy(name, extends, dates, columns)
    return Policy(name, extends, dates, columns, _allowed(path, document, policy))


def _mapping(path: Path, document: Mapping[str, Any], entry: str) -> Iterable[tuple[str, Any]]:
    items = document.get(entry) or {}
    if not isinstance(items, dict):
        raise PolicyError(f"{path}: `{entry}` has a line for each column")
    _require_among(path, items, _published_columns())
    return items.items()


def _require_among(path: Path, given: Iterable[object], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise PolicyError(f"{path}: {name!r} is not known{did_you_mean(str(name), known)}")


def _choice(path: Path, name: str, wanted: object) -> Treatment:
    column = _published_columns()[name]
    choices = _CHOICES.get(column.identifies, (_K, _W))
    if not choices:
        raise PolicyError(f"{path}: {name} is a date, and all dates are treated alike: `dates`")
    if name in _NEVER_WITHHELD:
        choices = tuple(choice for choice in choices if choice is not _W)
    return _choice_of(path, name, wanted, choices)


def _choice_of(path: Path, name: str, wanted: object, choices: Iterable[Treatment]) -> Treatment:
    by_word = {choice.value: choice for choice in choices}
    if wanted not in by_word:
        raise PolicyError(f"{path}: {name} can be {', '.join(by_word)}")
    return by_word[str(wanted)]


def _allowed(path: Path, document: Mapping[str, Any], policy: Policy) -> dict[str, frozenset[str]]:
    allowed = {}
    for name, values in _mapping(path, document, "allow"):
        if policy.treatment(_published_columns()[name]) not in REVIEWABLE:
            raise PolicyError(f"{path}: no values of {name} are to be allowed one by one")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise PolicyError(f"{path}: `allow` has a list of texts for {name}; quote numbers")
        allowed[name] = frozenset(values)
    return allowed


REVIEWABLE = frozenset((Treatment.TERMS, Treatment.REVIEWED))
"""Treatments of columns whose values can be allowed one by one."""
BY_VALUE = REVIEWABLE | {Treatment.SHORT}
"""Treatments that show some values; the others are null."""


def _base(column: Column, extends: str) -> Treatment:
    return _TREATMENTS[column.identifies][POLICIES.index(extends)]


def _narrowness(treatment: Treatment) -> int:
    return list(Treatment).index(treatment)


def _published_columns() -> dict[str, Column]:
    return {column.name: column for table in schema.PUBLISHED.values() for column in table}
