"""Settings that a plugin declares for itself: ``STAGECAST_<PLUGIN>_<FIELD>``, read when it is made.

The class that an entry point names has them as its attribute ``Settings``, a :class:`msgspec.Struct`; it is then made
with the host and an instance of that. A field of a list's or tuple's type takes words separated by commas; what is
said of a field in ``msgspec.Meta(description=...)`` is shown by ``stagecast plugins NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as shapes

from pipeline.errors import BadSetting

PREFIX = "STAGECAST_"
SECRET = re.compile("KEY|TOKEN|PASSWORD|SECRET|URL")
"""In a name: the value may hold a password, and is never shown."""
Settings = type[msgspec.Struct]


class Setting(msgspec.Struct, frozen=True):
    """One of a plugin's settings, as it is listed; ``default`` is None when it must be given."""

    variable: str
    kind: str
    default: str | None
    description: str


def prefix(plugin: str) -> str:
    """Return how the names of a plugin's settings begin."""
    return f"{PREFIX}{re.sub('[^A-Z0-9]', '_', plugin.upper())}_"


def declared_by(maker: object) -> Settings | None:
    """Return the settings that a plugin's class declares, if it does.

    Raises:
        TypeError: They are no ``msgspec.Struct``.
    """
    declared = getattr(maker, "Settings", None)
    if declared is None:
        return None
    if not (isinstance(declared, type) and issubclass(declared, msgspec.Struct)):
        raise TypeError("its Settings are no msgspec.Struct")
    return declared


def listed(declared: Settings | None, plugin: str) -> list[Setting]:
    """Return what can be set, in the order in which it is declared."""
    if declared is None:
        return []
    info = shapes.type_info(declared)
    assert isinstance(info, shapes.StructType)
    return [
        Setting(prefix(plugin) + field.name.upper(), _kind(field.type), _default(field), _description(field.type))
        for field in info.fields
    ]


def read(declared: Settings, plugin: str, given: Mapping[str, str]) -> msgspec.Struct:
    """Return a plugin's settings from variables by their names in capitals.

    Raises:
        BadSetting: One is malformed, or missing without having a default; the message names it.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(declared):
        variable = prefix(plugin) + field.name.upper()
        if variable in given:
            values[field.name] = _converted(variable, given[variable], field.type)
        elif field.required:
            raise BadSetting(f"setting {variable}: {plugin!r} needs it, and it has no default")
    try:
        return declared(**values)
    except (TypeError, ValueError) as refused:
        raise BadSetting(f"settings {prefix(plugin)}*: {refused}") from refused


def _converted(variable: str, value: str, wanted: Any) -> Any:
    shape = _bare(shapes.type_info(wanted))
    parts: object = value
    if isinstance(shape, shapes.CollectionType | shapes.TupleType):
        parts = [word.strip() for word in value.split(",") if word.strip()]
    try:
        return msgspec.convert(parts, wanted, strict=False, dec_hook=_made)
    except (msgspec.ValidationError, ValueError) as refused:
        shown = "" if SECRET.search(variable) else f" (it is {value[:80]!r})"
        raise BadSetting(f"setting {variable}: {str(refused).partition(' - at ')[0]}{shown}") from None


def _made(wanted: type, value: object) -> object:
    """Make what msgspec does not know of its own."""
    if wanted is Path:
        return Path(str(value)).expanduser()
    raise ValueError(f"a setting cannot be a {wanted.__name__}")


def _bare(shape: shapes.Type) -> shapes.Type:
    return shape.type if isinstance(shape, shapes.Metadata) else shape


def _kind(shape: shapes.Type) -> str:
    shape = _bare(shape)
    if isinstance(shape, shapes.LiteralType):
        return " or ".join(map(str, shape.values))
    if isinstance(shape, shapes.UnionType):
        return " or ".join(_kind(one) for one in shape.types if not isinstance(one, shapes.NoneType))
    if isinstance(shape, shapes.CollectionType):
        return f"{_kind(shape.item_type)}, ..."
    if isinstance(shape, shapes.CustomType):
        return shape.cls.__name__.lower()
    bounds = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [f"{sign} {limit}" for name, sign in bounds.items() if (limit := getattr(shape, name, None)) is not None]
    return " ".join([type(shape).__name__.removesuffix("Type").lower(), *limits])


def _default(field: shapes.Field) -> str | None:
    if field.required:
        return None
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(default, list | tuple | set | frozenset):
        return ",".join(map(str, default))
    return "" if default is None else str(default)


def _description(shape: shapes.Type) -> str:
    extra = (shape.extra_json_schema or {}) if isinstance(shape, shapes.Metadata) else {}
    return str(extra.get("description", ""))
