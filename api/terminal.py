"""Text of others on a terminal."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(text: str) -> str:
    """Return a text whose control characters do nothing: what a caller asks must not steer the operator's terminal."""
    return CONTROL.sub("\ufffd", text)
