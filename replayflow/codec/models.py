"""All that the codec knows of pydantic, which it never imports: its classes exist only where the user imported it.

1. Models are written by field name and read by field name or alias, where this pydantic can do so (2.11 on); before, by
   alias both ways.
2. A model's own rules decide what it accepts: the codec only hands it the plain value.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

_BY_NAME_SINCE = (2, 11)


def is_model(kind: type) -> bool:
    """Whether the class is a pydantic model."""
    module = sys.modules.get("pydantic.main")
    return module is not None and issubclass(kind, module.BaseModel)


def is_root_model(kind: type) -> bool:
    """Whether the class is a pydantic model of one bare value, which need not be a mapping."""
    return bool(getattr(kind, "__pydantic_root_model__", False))


def is_model_dataclass(kind: type) -> bool:
    """Whether the class is a pydantic dataclass."""
    return hasattr(kind, "__pydantic_validator__") and dataclasses.is_dataclass(kind)


def dump(model: Any) -> Any:
    """The model's fields as plain values; nothing that is computed from them."""
    return model.model_dump(by_alias=not _can_by_name(), round_trip=True, warnings=False)


def validate(kind: Any) -> Callable[[Any], Any]:
    """What builds an instance of the model or pydantic dataclass from a plain value."""
    check = kind.model_validate if is_model(kind) else kind.__pydantic_validator__.validate_python
    if not _can_by_name():
        return check  # type: ignore[no-any-return]  # the class is only known by its shape
    return lambda value: check(value, by_alias=True, by_name=True)


def names(kind: Any) -> frozenset[str]:
    """Every key under which the model takes a field."""
    fields: dict[str, Any] = kind.model_fields
    return frozenset(fields) | {str(field.alias) for field in fields.values() if field.alias is not None}


def first_problem(error: Exception) -> tuple[str, str, object] | None:
    """The first thing that pydantic found wrong, as path, message and offending value; None for any other error."""
    module = sys.modules.get("pydantic_core")
    if module is None or not isinstance(error, module.ValidationError):
        return None
    checked: Any = error
    problem: dict[str, Any] = checked.errors(include_url=False)[0]
    path = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in problem["loc"])
    return path, str(problem["msg"]), problem["input"]


def _can_by_name() -> bool:
    version: str = sys.modules["pydantic"].VERSION
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= _BY_NAME_SINCE
