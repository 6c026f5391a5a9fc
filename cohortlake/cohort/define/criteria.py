"""What a cohort is, as data: its steps in order, and the same as YAML, there and back exactly.

Owns the words of a YAML file. What the criteria mean in SQL is `select`'s; whether a column
or a value exists is the lake's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    Join,
    OneStudyPerPatient,
    Split,
    Step,
    Value,
    Where,
    WithoutStudy,
    WithStudy,
    check_name,
)
from cohortlake.errors import BadCriteria, did_you_mean

LEVELS = ("patient", "study", "series")


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
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            _check_spelling(root, "a value", set())
            told = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise BadCriteria(f"the YAML cannot be read{where}") from None
        except ValueError:
            raise BadCriteria("the YAML holds a date that is not in the calendar") from None
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
    if not step.file:
        return step.table
    told: dict[str, Any] = {"table": step.table, "file": step.file}
    return told | {"date_formats": dict(step.date_formats)} if step.date_formats else told


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
    known = _mapping(told, "join", ("table", "file", "date_formats"), need=("table", "file"))
    formats = _mapping(known.get("date_formats", {}), "date_formats")
    return Join(
        _text(known["table"], "table"), _text(known["file"], "file"), tuple(formats.items())
    )


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


# Of the numbers that YAML 1.1 reads, those that everybody reads the same.
_PLAIN_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?[0-9]*\.[0-9]*([eE][-+][0-9]+)?|[-+]?\.\w+"),
}


def _check_spelling(node: yaml.Node | None, what: str, seen: set[int]) -> None:
    """Refuse numbers that YAML reads otherwise than people: `010` is 8 to it, `12:30` is 750.

    Raises:
        BadCriteria: There is one, or a key stands twice; the message names it and its line.
    """
    if node is None or id(node) in seen:  # an alias
        return
    seen.add(id(node))
    line = node.start_mark.line + 1
    plain = _PLAIN_NUMBERS.get(node.tag)
    if plain and not plain.fullmatch(node.value):
        raise BadCriteria(
            f"{what} in line {line} is read as another number than it looks like: quote it where "
            "it is text, as in '0123', or write it in decimal digits without a leading zero"
        )
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_spelling(item, what, seen)
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        if len({*keys}) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BadCriteria(f"{twice!r} stands twice in the mapping of line {line}; join them")
        for key, (_, value) in zip(keys, node.value, strict=True):
            _check_spelling(value, key, seen)


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
