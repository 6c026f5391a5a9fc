"""The service model: botocore's description of HealthImaging, as routes and a validator.

It reads from botocore's data which requests exist, which shape they have and which HTTP status an
error has. See `operations` for what an operation does, and `search` for rules that the model does
not state, such as the number of values of an operator.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from multidict import MultiMapping

from emulator.wire import decode, invalid

SERVICE = "medical-imaging"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
    "string": (str,),
    "blob": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True)
class Operation:
    """One operation of the model, with the method and path of its requests."""

    name: str
    method: str
    path: re.Pattern[str]
    input_shape: StructureShape


class HealthImaging:
    """The service model. It is read once."""

    def __init__(self) -> None:
        description = Loader().load_service_model(SERVICE, "service-2")
        self._service = ServiceModel(cast("dict[str, Any]", description), SERVICE)
        self.operations = tuple(map(self._operation, self._service.operation_names))

    def route(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Returns the operation of a request line and its path parameters, if there is one."""
        for operation in self.operations:
            match = operation.path.fullmatch(path) if operation.method == method else None
            if match:
                return operation, {name: unquote(text) for name, text in match.groupdict().items()}
        return None

    def read(
        self, operation: Operation, path: Mapping[str, str], query: MultiMapping[str], body: bytes
    ) -> dict[str, Any]:
        """Combines the parts of a request into the operation's input and checks it.

        Raises:
            ServiceError: `ValidationException`, which names every invalid member and no value.
        """
        shape = operation.input_shape
        values: dict[str, Any] = {}
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            wire_name = str(member.serialization.get("name", name))
            if location == "uri":
                values[name] = path[wire_name]
            elif location == "querystring" and wire_name in query:
                values[name] = _from_query(member, query.getall(wire_name))
        payload = shape.serialization.get("payload")
        if body:
            values |= {str(payload): decode(body)} if payload else _from_body(shape, decode(body))
        problems = list(_problems(shape, values, ""))
        if problems:
            count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected"
            raise invalid(f"{count}: {'; '.join(problems)}")
        return values

    def status(self, code: str) -> int:
        """Returns the HTTP status of an error code."""
        error = self._service.shape_for(code).metadata["error"]
        return int(error["httpStatusCode"])

    def _operation(self, name: str) -> Operation:
        described = self._service.operation_model(name)
        path = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(described.http["requestUri"]))
        shape = cast("StructureShape", described.input_shape)
        return Operation(name, described.http["method"], re.compile(path), shape)


def _from_body(shape: StructureShape, body: Any) -> dict[str, Any]:
    """Returns the members that an operation without a payload takes from the body.

    Raises:
        ServiceError: `ValidationException` if the body is not an object.
    """
    if not isinstance(body, dict):
        raise invalid("The body of the request must be one JSON object")
    return {
        name: body[name]
        for name, member in shape.members.items()
        if name in body and "location" not in member.serialization
    }


def _from_query(shape: Shape, texts: list[str]) -> Any:
    """Reads a query parameter. The validator refuses text that does not have the shape's type."""
    if shape.type_name == "list":
        return texts
    text = texts[0]
    if shape.type_name in ("integer", "long") and re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return int(text)
    if shape.type_name == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _problems(shape: Shape, value: Any, at: str) -> Iterator[str]:
    """Yields a message for each part of a value that breaks the limits of its shape."""
    if not _has_type(shape.type_name, value):
        yield f"Value at '{at}' failed to satisfy constraint: Member must be a {shape.type_name}"
    elif shape.type_name == "structure":
        yield from _structure_problems(cast("StructureShape", shape), value, at)
    elif shape.type_name == "list":
        yield from _size_problems(shape, len(value), "length", at)
        for place, item in enumerate(value, 1):
            yield from _problems(cast("ListShape", shape).member, item, f"{at}.{place}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _problems(cast("MapShape", shape).key, key, f"{at}.key")
            yield from _problems(cast("MapShape", shape).value, item, f"{at}.value")
    elif shape.type_name == "blob":
        yield from _blob_problems(shape, value, at)
    elif shape.type_name == "string":
        yield from _string_problems(cast("StringShape", shape), value, at)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _size_problems(shape, value, "value", at)


def _has_type(type_name: str, value: Any) -> bool:
    # In Python a bool is an int, in JSON it is not a number.
    if isinstance(value, bool):
        return type_name == "boolean"
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, _TYPES[type_name])


def _structure_problems(shape: StructureShape, value: dict[str, Any], at: str) -> Iterator[str]:
    # As at AWS, null means an absent member, and unknown members are ignored.
    given = {name: item for name, item in value.items() if item is not None}
    prefix = f"{at}." if at else ""
    for name in shape.required_members:
        if name not in given:
            yield _broken(f"{prefix}{name}", "Member must not be null")
    if shape.is_tagged_union and (len(given) != 1 or not given.keys() <= shape.members.keys()):
        yield _broken(at, f"Member must have exactly one of [{', '.join(shape.members)}]")
    for name, member in shape.members.items():
        if name in given:
            yield from _problems(member, given[name], f"{prefix}{name}")


def _blob_problems(shape: Shape, value: str, at: str) -> Iterator[str]:
    try:
        yield from _size_problems(shape, len(b64decode(value, validate=True)), "length", at)
    except ValueError:
        yield _broken(at, "Member must be base64")


def _string_problems(shape: StringShape, value: str, at: str) -> Iterator[str]:
    yield from _size_problems(shape, len(value), "length", at)
    if shape.enum and value not in shape.enum:
        yield _broken(at, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not _matcher(str(pattern))(value):
        yield _broken(at, f"Member must satisfy regular expression pattern: {pattern}")


def _size_problems(shape: Shape, size: float, what: str, at: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _broken(at, f"Member must have {what} greater than or equal to {least}")
    if most is not None and size > most:
        yield _broken(at, f"Member must have {what} less than or equal to {most}")


def _broken(at: str, constraint: str) -> str:
    return f"Value at '{at}' failed to satisfy constraint: {constraint}"


@lru_cache
def _matcher(pattern: str) -> Callable[[str], object]:
    # The patterns are Java patterns. Python knows all they use, except \p{ASCII}.
    return re.compile(pattern.replace(r"\p{ASCII}", r"[\x00-\x7f]"), re.ASCII).fullmatch
