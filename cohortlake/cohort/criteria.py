"""What a cohort is, as data: frozen dataclasses, and the same as YAML, there and back exactly.

Owns the words of a YAML file. What the criteria mean in SQL is `select`'s; whether a column
or a value exists is the lake's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

import yaml

from cohortlake.cohort.period import Period
from cohortlake.errors import BadCriteria, did_you_mean

Value: TypeAlias = str | int | float | bool | date | None

LEVELS = ("patient", "study", "series")
CHOICES = ("first", "last", "closest", "random")
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Condition:
    """What rows must be: all of it.

    Attributes:
        values: Column -> the values of which it has one; None is a missing value.
        texts: Conditions in SQL.
    """

    values: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.values or self.texts):
            raise BadCriteria("a condition is empty; give a column's value or a condition in SQL")
        for column, values in self.values:
            if not values:
                raise BadCriteria(f"{column}: give at least one value")
            for value in values:
                _check_value(column, value)

    def __str__(self) -> str:
        parts = [f"{column} {' or '.join(map(_word, values))}" for column, values in self.values]
        return ", ".join((*parts, *self.texts))


@dataclass(frozen=True)
class Where:
    """Keep the rows that meet a condition."""

    condition: Condition

    def __str__(self) -> str:
        return str(self.condition)


@dataclass(frozen=True)
class Exclude:
    """Leave out the rows that meet a condition."""

    condition: Condition

    def __str__(self) -> str:
        return f"not ({self.condition})"


@dataclass(frozen=True)
class WithStudy:
    """Keep the studies whose patient has another study that meets a condition, so far away.

    The other study may be any of the lake's. A study without a date is left out.
    """

    period: Period
    condition: Condition

    def __str__(self) -> str:
        return f"another study {self.period}: {self.condition}"


@dataclass(frozen=True)
class WithoutStudy:
    """Keep the studies whose patient has no such other study; see `WithStudy`."""

    period: Period
    condition: Condition

    def __str__(self) -> str:
        return f"no other study {self.period}: {self.condition}"


@dataclass(frozen=True)
class OneStudyPerPatient:
    """Keep one study of each patient, the same one whatever the order of the rows.

    Attributes:
        choice: first, last, closest or random. All but random leave out studies without a date.
        to: For closest: a date, or the name of a date column of a joined table.
        seed: For random.
    """

    choice: str
    to: date | str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise BadCriteria(
                f"{self.choice!r} is none of {', '.join(CHOICES)}"
                f"{did_you_mean(self.choice, CHOICES)}"
            )
        if (self.choice == "closest") != (self.to is not None):
            raise BadCriteria("closest, and only closest, takes a date or a joined table's column")
        if (self.choice == "random") != _is_int(self.seed):
            raise BadCriteria("random, and only random, takes a seed, a whole number")

    def __str__(self) -> str:
        more = {"closest": f" to {self.to}", "random": f", seed {self.seed}"}
        return f"{self.choice} study of each patient" + more.get(self.choice, "")


@dataclass(frozen=True)
class Join:
    """Keep the patients that an outside table has a row for; later steps may use its columns.

    Attributes:
        table: The name it was attached under.
        file: Where a YAML file finds it: Parquet or CSV, relative to the YAML file.
    """

    table: str
    file: str | None = None

    def __post_init__(self) -> None:
        check_name(self.table, "a table's name")

    def __str__(self) -> str:
        return f"in {self.table}"


Step: TypeAlias = Where | Exclude | WithStudy | WithoutStudy | OneStudyPerPatient | Join


@dataclass(frozen=True)
class Split:
    """Parts of a cohort, by patient: a patient's part depends on its key and this only.

    Attributes:
        shares: Part -> about which share of the patients it has; together 1.
        seed: Another gives other parts.
    """

    shares: tuple[tuple[str, float], ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in self.shares:
            check_name(name, "the name of a part")
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise BadCriteria(f"{name}: a part's share is a number above 0 and up to 1")
        if not math.isclose(sum(share for _, share in self.shares), 1):
            raise BadCriteria("the shares of a split must add up to 1")
        if len({name for name, _ in self.shares}) < len(self.shares):
            raise BadCriteria("two parts of a split have one name")
        if not _is_int(self.seed):
            raise BadCriteria("a split's seed is a whole number")


@dataclass(frozen=True)
class Criteria:
    """A cohort.

    Attributes:
        name: A name, also for files: lower case, digits and underscores.
        level: What a member is: a patient, a study or a series.
        about: What it is for, in a sentence.
        steps: What leaves others out, in this order.
        split: Its parts, or None.
    """

    name: str
    level: str = "study"
    about: str = ""
    steps: tuple[Step, ...] = ()
    split: Split | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "a cohort's name")
        if self.level not in LEVELS:
            raise BadCriteria(
                f"level {self.level!r} is none of {', '.join(LEVELS)}"
                f"{did_you_mean(self.level, LEVELS)}"
            )
        joined = [step.table for step in self.steps if isinstance(step, Join)]
        if len(set(joined)) < len(joined):
            raise BadCriteria("a table is joined twice; once is enough")

    @property
    def joins(self) -> tuple[Join, ...]:
        """Its joins, in order."""
        return tuple(step for step in self.steps if isinstance(step, Join))

    def to_yaml(self) -> str:
        """Return it as YAML, which `from_yaml` reads back exactly."""
        told = self.to_dict()
        text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=88)
        if yaml.safe_load(text) == told:
            return text
        # PyYAML leaves some control characters unescaped that it then takes for line breaks.
        return yaml.safe_dump(told, sort_keys=False, width=88)

    def to_dict(self) -> dict[str, Any]:
        """Return what the YAML says."""
        told: dict[str, Any] = {"cohort": self.name}
        if self.about:
            told["about"] = self.about
        told["level"] = self.level
        told["steps"] = [_step_told(step) for step in self.steps]
        if self.split:
            told["split"] = dict(self.split.shares) | {"seed": self.split.seed}
        return told

    @classmethod
    def from_yaml(cls, text: str) -> Criteria:
        """Read YAML.

        Raises:
            BadCriteria: It makes no cohort; the message names the line or the step.
        """
        try:
            told = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise BadCriteria(f"the YAML cannot be read{where}") from None
        return cls.from_dict(told)

    @classmethod
    def from_dict(cls, told: object) -> Criteria:
        """Read what YAML said.

        Raises:
            BadCriteria: It makes no cohort; the message names the step.
        """
        known = _mapping(told, "a cohort", ("cohort", "about", "level", "steps", "split"))
        steps = known.get("steps") or []
        if not isinstance(steps, list):
            raise BadCriteria("steps must be a list, each with a dash")
        return cls(
            name=_text(known.get("cohort"), "cohort"),
            level=_text(known.get("level", "study"), "level"),
            about=_text(known.get("about", ""), "about"),
            steps=tuple(_step(number, step) for number, step in enumerate(steps, 1)),
            split=_split(known["split"]) if "split" in known else None,
        )


def check_name(name: str, what: str) -> None:
    """Refuse what may not be a name.

    Raises:
        BadCriteria: It holds something else than lower case letters, digits and underscores.
    """
    if not NAME.fullmatch(name):
        raise BadCriteria(
            f"{name!r} cannot be {what}: use lower case letters, digits and underscores, a "
            "letter first"
        )


def _check_value(column: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadCriteria(f"{column}: a value must be finite")
    if isinstance(value, datetime) or not isinstance(value, Value):
        raise BadCriteria(
            f"{column}: a value is text, a number, true, false, a date or null; for an instant "
            "write a condition in SQL"
        )


def _word(value: Value) -> str:
    return "missing" if value is None else str(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What the steps are called in YAML, how each is told, and how it is read.


def _condition_told(condition: Condition) -> Any:
    values = {c: list(v) if len(v) > 1 else v[0] for c, v in condition.values}
    parts = [*([values] if values else []), *condition.texts]
    return parts[0] if len(parts) == 1 else parts


def _related_told(step: WithStudy | WithoutStudy) -> Any:
    return {"when": str(step.period), "where": _condition_told(step.condition)}


def _choice_told(step: OneStudyPerPatient) -> Any:
    option = step.to if step.choice == "closest" else step.seed
    return step.choice if option is None else {step.choice: option}


def _join_told(step: Join) -> Any:
    return {"table": step.table, "file": step.file} if step.file else step.table


def _condition(told: object) -> Condition:
    values: list[tuple[str, tuple[Value, ...]]] = []
    texts: list[str] = []
    for part in told if isinstance(told, list) else [told]:
        if isinstance(part, str):
            texts.append(part)
        else:
            for column, given in _mapping(part, "a condition").items():
                values.append((column, tuple(given) if isinstance(given, list) else (given,)))
    return Condition(tuple(values), tuple(texts))


def _related(make: Callable[[Period, Condition], Step]) -> Callable[[object], Step]:
    def read(told: object) -> Step:
        known = _mapping(told, "another study", ("when", "where"), need=("when", "where"))
        return make(Period.parse(_text(known["when"], "when")), _condition(known["where"]))

    return read


def _choice(told: object) -> OneStudyPerPatient:
    if isinstance(told, str):
        return OneStudyPerPatient(told)
    ((choice, option), *more) = _mapping(told, "one_study_per_patient").items() or ((None, None),)
    if more or choice not in ("closest", "random"):
        raise BadCriteria("write first, last, {closest: 2020-01-31} or {random: 7}")
    return OneStudyPerPatient(choice, **{"to" if choice == "closest" else "seed": option})


def _join(told: object) -> Join:
    if isinstance(told, str):
        return Join(told)
    known = _mapping(told, "join", ("table", "file"), need=("table", "file"))
    return Join(_text(known["table"], "table"), _text(known["file"], "file"))


_STEPS: dict[str, tuple[type, Callable[[Any], Any], Callable[[object], Step]]] = {
    "where": (Where, lambda s: _condition_told(s.condition), lambda told: Where(_condition(told))),
    "exclude": (
        Exclude,
        lambda s: _condition_told(s.condition),
        lambda told: Exclude(_condition(told)),
    ),
    "with_study": (WithStudy, _related_told, _related(WithStudy)),
    "without_study": (WithoutStudy, _related_told, _related(WithoutStudy)),
    "one_study_per_patient": (OneStudyPerPatient, _choice_told, _choice),
    "join": (Join, _join_told, _join),
}


def _step_told(step: Step) -> dict[str, Any]:
    (word,) = (word for word, (kind, _, _) in _STEPS.items() if type(step) is kind)
    return {word: _STEPS[word][1](step)}


def _step(number: int, told: object) -> Step:
    try:
        known = _mapping(told, "a step", tuple(_STEPS))
        if len(known) != 1:
            raise BadCriteria("each step, with a dash of its own, says one thing")
        ((word, option),) = known.items()
        return _STEPS[word][2](option)
    except BadCriteria as error:
        raise BadCriteria(f"step {number}: {error}") from None


def _split(told: object) -> Split:
    known = dict(_mapping(told, "split"))
    seed = known.pop("seed", 0)
    return Split(tuple(known.items()), seed)


def _mapping(
    told: object, what: str, known: tuple[str, ...] = (), *, need: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    if not isinstance(told, dict) or not all(isinstance(key, str) for key in told):
        names = f" of {', '.join(known)}" if known else ""
        raise BadCriteria(f"{what} must be a mapping{names}")
    for key in told:
        if known and key not in known:
            raise BadCriteria(f"{key!r} is not known in {what}{did_you_mean(key, known)}")
    for key in need:
        if key not in told:
            raise BadCriteria(f"{what} needs {key!r}")
    return told


def _text(told: object, what: str) -> str:
    if not isinstance(told, str):
        raise BadCriteria(f"{what} must be text")
    return told
