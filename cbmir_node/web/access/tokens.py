"""Secrets with enough chance in them that a plain hash protects them."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """Return 256 bits of chance, fit for a header, a cookie and a URL."""
    return secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal: all that is kept of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
