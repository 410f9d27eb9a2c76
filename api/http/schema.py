"""The events in the OpenAPI description, made from the structs that are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Reference, RequestBody, Schema

from pipeline.events import WIRE_EVENTS

_TEMPLATE = "#/components/schemas/{name}"
_TIMESTAMP = {"type": "string", "format": "date-time", "examples": ["2025-11-06T10:30:40.000Z"]}


def describe_events() -> dict[str, Any]:
    """Return a JSON schema for each event type and what it holds, and ``Event`` for any of them."""
    _, schemas = msgspec.json.schema_components(WIRE_EVENTS, ref_template=_TEMPLATE)
    names = [event.__name__ for event in WIRE_EVENTS]
    for name in names:
        schemas[name]["properties"]["timestamp"] = _TIMESTAMP
    for schema in schemas.values():
        if "properties" in schema:  # what has a default is sent all the same
            schema["required"] = list(schema["properties"])
    mapping = {schemas[name]["properties"]["type"]["enum"][0]: _TEMPLATE.format(name=name) for name in names}
    schemas["Event"] = {
        "description": "The data of one Server-Sent Event. Stages of plugins add types of their own, `<stage>_start` "
        "and `<stage>_complete`; a client should pass over types it does not know.",
        "oneOf": [{"$ref": _TEMPLATE.format(name=name)} for name in names],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return schemas


@dataclass
class StreamOperation(Operation):
    """An operation whose answer may also be a stream of events."""

    def __post_init__(self) -> None:
        answer: Any = (self.responses or {}).get("200")
        if answer is not None and answer.content is not None:
            answer.content["text/event-stream"] = OpenAPIMediaType(schema=Reference(ref=_TEMPLATE.format(name="Event")))


@dataclass
class UploadOperation(Operation):
    """An operation whose body is files, read as they come, so that nothing of Litestar's describes it."""

    def __post_init__(self) -> None:
        file = Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        files = Schema(type=OpenAPIType.ARRAY, items=file, min_items=1, description="Files, under any field names.")
        form = Schema(type=OpenAPIType.OBJECT, properties={"file": files}, required=["file"])
        self.request_body = RequestBody(content={"multipart/form-data": OpenAPIMediaType(schema=form)}, required=True)
