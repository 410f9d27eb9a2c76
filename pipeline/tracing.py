"""The trace that a run is part of, for whoever asks another server on its behalf."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

trace_headers: ContextVar[Mapping[str, str]] = ContextVar("trace_headers", default=MappingProxyType({}))
"""The headers that tell another server which span asks it; none while nothing is traced."""
