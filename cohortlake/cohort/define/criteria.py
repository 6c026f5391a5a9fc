"""Criteria as data: the steps of a cohort in order, written to YAML and read back exactly.

A step in YAML is a mapping of the word for the step, and perhaps a `label`. See `cohort.select` for
what the criteria mean in SQL. Nothing here knows which columns and values exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    """The definition of a cohort.

    Attributes:
        name: A name, also for files: lower case, digits and underscores.
        level: What a member is: a patient, a study or a series.
        about: What it is for, in a sentence.
        steps: The steps that keep or leave out rows, in order.
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
        data = self.to_dict()
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=88)
        if yaml.safe_load(text) == data:
            return text
        # PyYAML leaves some control characters unescaped that it then takes for line breaks.
        return yaml.safe_dump(data, sort_keys=False, width=88)

    def to_dict(self) -> dict[str, Any]:
        """Return the criteria as the data of the YAML file."""
        data: dict[str, Any] = {"cohort": self.name}
        if self.about:
            data["about"] = self.about
        data["level"] = self.level
        data["steps"] = [_step_data(step) for step in self.steps]
        if self.split:
            held_out = {name: _condition_data(held) for name, held in self.split.held_out}
            data["split"] = {**dict(self.split.shares), **held_out, "seed": self.split.seed}
        return data

    @classmethod
    def from_yaml(cls, text: str) -> Criteria:
        """Read criteria from YAML.

        Raises:
            BadCriteria: It makes no cohort; the message names the line or the step.
        """
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            _check_spelling(root, "a value", set())
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise BadCriteria(f"the YAML cannot be read{where}") from None
        except ValueError:
            raise BadCriteria("the YAML holds a date that is not in the calendar") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> Criteria:
        """Read the data of a YAML file.

        Raises:
            BadCriteria: It makes no cohort; the message names the step.
        """
        known = _mapping(data, "a cohort", ("cohort", "about", "level", "steps", "split"))
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


# The words of the steps in YAML, and how each is written and read.


def _condition_data(condition: Condition) -> Any:
    values = {c: list(v) if len(v) > 1 else v[0] for c, v in condition.values}
    parts = [*([values] if values else []), *condition.texts]
    return parts[0] if len(parts) == 1 else parts


def _related_data(step: WithStudy | WithoutStudy) -> Any:
    return {"when": str(step.period), "where": _condition_data(step.condition)}


def _choice_data(step: OneStudyPerPatient) -> Any:
    option = step.to if step.choice == "closest" else step.seed
    return step.choice if option is None else {step.choice: option}


def _join_data(step: Join) -> Any:
    if not step.file:
        return step.table
    data: dict[str, Any] = {"table": step.table, "file": step.file}
    return data | {"date_formats": dict(step.date_formats)} if step.date_formats else data


def _condition(data: object) -> Condition:
    values: list[tuple[str, tuple[Value, ...]]] = []
    texts: list[str] = []
    for part in data if isinstance(data, list) else [data]:
        if isinstance(part, str):
            texts.append(part)
        else:
            for column, given in _mapping(part, "a condition").items():
                values.append((column, tuple(given) if isinstance(given, list) else (given,)))
    return Condition(tuple(values), tuple(texts))


def _related(make: Callable[[Period, Condition], Step]) -> Callable[[object], Step]:
    def read(data: object) -> Step:
        known = _mapping(data, "another study", ("when", "where"), need=("when", "where"))
        return make(Period.parse(_text(known["when"], "when")), _condition(known["where"]))

    return read


def _choice(data: object) -> OneStudyPerPatient:
    if isinstance(data, str):
        return OneStudyPerPatient(data)
    ((choice, option), *more) = _mapping(data, "one_study_per_patient").items() or ((None, None),)
    if more or choice not in ("closest", "random"):
        raise BadCriteria("write first, last, {closest: 2020-01-31} or {random: 7}")
    is_closest = choice == "closest"
    return OneStudyPerPatient(
        choice, to=option if is_closest else None, seed=None if is_closest else option
    )


def _join(data: object) -> Join:
    if isinstance(data, str):
        return Join(data)
    known = _mapping(data, "join", ("table", "file", "date_formats"), need=("table", "file"))
    formats = _mapping(known.get("date_formats", {}), "date_formats")
    return Join(
        _text(known["table"], "table"), _text(known["file"], "file"), tuple(formats.items())
    )


_STEPS: dict[str, tuple[type, Callable[[Any], Any], Callable[[object], Step]]] = {
    "where": (Where, lambda s: _condition_data(s.condition), lambda data: Where(_condition(data))),
    "exclude": (
        Exclude,
        lambda s: _condition_data(s.condition),
        lambda data: Exclude(_condition(data)),
    ),
    "with_study": (WithStudy, _related_data, _related(WithStudy)),
    "without_study": (WithoutStudy, _related_data, _related(WithoutStudy)),
    "one_study_per_patient": (OneStudyPerPatient, _choice_data, _choice),
    "join": (Join, _join_data, _join),
}
_LABEL = "label"


def _step_data(step: Step) -> dict[str, Any]:
    (word,) = (word for word, (kind, _, _) in _STEPS.items() if type(step) is kind)
    data = {word: _STEPS[word][1](step)}
    return data | {_LABEL: step.label} if step.label else data


def _step(number: int, data: object) -> Step:
    try:
        known = dict(_mapping(data, "a step", (*_STEPS, _LABEL)))
        label = _text(known.pop(_LABEL, ""), _LABEL)
        if len(known) != 1:
            raise BadCriteria("each step, with a dash of its own, says one thing")
        ((word, option),) = known.items()
        return replace(_STEPS[word][2](option), label=label)
    except BadCriteria as error:
        raise BadCriteria(f"step {number}: {error}") from None


def _split(data: object) -> Split:
    known = dict(_mapping(data, "split"))
    seed = known.pop("seed", 0)
    held_out = {
        name: _condition(held)
        for name, held in known.items()
        if isinstance(held, dict | list | str)
    }
    shares = tuple((name, share) for name, share in known.items() if name not in held_out)
    return Split(shares, seed, tuple(held_out.items()))


# The numbers of YAML 1.1 that people and YAML read in the same way.
_PLAIN_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?[0-9]*\.[0-9]*([eE][-+][0-9]+)?|[-+]?\.\w+"),
}


def _check_spelling(node: yaml.Node | None, what: str, seen: set[int]) -> None:
    """Refuse numbers that YAML reads in its own way: it reads `010` as 8, and `12:30` as 750.

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
    data: object, what: str, known: tuple[str, ...] = (), *, need: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        names = f" of {', '.join(known)}" if known else ""
        raise BadCriteria(f"{what} must be a mapping{names}")
    for key in data:
        if known and key not in known:
            raise BadCriteria(f"{key!r} is not known in {what}{did_you_mean(key, known)}")
    for key in need:
        if key not in data:
            raise BadCriteria(f"{what} needs {key!r}")
    return data


def _text(data: object, what: str) -> str:
    if not isinstance(data, str):
        raise BadCriteria(f"{what} must be text")
    return data
