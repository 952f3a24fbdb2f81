"""File names in headers."""

from __future__ import annotations

import re
from urllib.parse import quote


def attachment(name: str) -> str:
    """Return a Content-Disposition that offers to save a response as `name` (RFC 6266).

    Parameters
    ----------
    name : str
        Of any origin: whatever could end a header, quote or lead out of a folder is replaced.
        Other than ASCII goes into ``filename*`` (RFC 8187).
    """
    printable = "".join(
        character if character.isprintable() and character not in '/\\:*?"<>|' else "_"
        for character in name
    ).lstrip(".")[:120]
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", printable) or "download"
    value = f'attachment; filename="{plain}"'
    if printable and plain != printable:
        encoded = quote(printable.encode("utf-8", "replace"), safe="")
        value += f"; filename*=UTF-8''{encoded}"
    return value
