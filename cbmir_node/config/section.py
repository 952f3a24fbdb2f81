"""What sections of the settings have in common."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|::1)$")
"""Hosts that only this machine reaches."""


class Section(BaseModel):
    """A section: an unknown key is an error, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def listed(texts: object) -> object:
    """Return the parts of a text with commas; anything else as it is."""
    if not isinstance(texts, str):
        return texts
    return tuple(part.strip() for part in texts.split(",") if part.strip())
