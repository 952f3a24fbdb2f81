"""Passwords, kept as scrypt hashes (RFC 7914)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import unicodedata

_N, _R, _P = 2**15, 8, 3  # OWASP's Password Storage Cheat Sheet: 32 MiB
_BYTES = 32
_MAX_MEMORY = 256 * 2**20


def hash_password(password: str) -> str:
    """Return what is kept of a password: ``scrypt$N$r$p$SALT$HASH``, the last two in Base64.

    Parameters
    ----------
    password : str
        Of any characters; composed and decomposed ones count as the same (RFC 8265).
    """
    salt = os.urandom(16)
    return _text(_N, _R, _P, salt, _derive(password, _N, _R, _P, salt))


def is_password(password: str, password_hash: str) -> bool:
    """Tell whether a password is the one of which `password_hash` was kept."""
    _, n, r, p, salt, expected = password_hash.split("$")
    derived = _derive(password, int(n), int(r), int(p), base64.b64decode(salt))
    return hmac.compare_digest(derived, base64.b64decode(expected))


def nobodys_password_hash() -> str:
    """Return a hash that no password has, to be compared with as slowly as with any other."""
    return _text(_N, _R, _P, os.urandom(16), os.urandom(_BYTES))


def _derive(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, dklen=_BYTES, maxmem=_MAX_MEMORY)


def _text(n: int, r: int, p: int, salt: bytes, derived: bytes) -> str:
    encoded = [base64.b64encode(part).decode() for part in (salt, derived)]
    return "$".join(["scrypt", str(n), str(r), str(p), *encoded])
