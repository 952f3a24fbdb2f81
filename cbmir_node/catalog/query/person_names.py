"""Person names (VR PN, PS3.5 6.2.1) as they are compared: regardless of case, accents and width.

PS3.4 C.2.2.2.1 leaves that to the application for names, and for names only.
"""

from __future__ import annotations

import re
import unicodedata

from cbmir_node.catalog.keys import NAME_GROUPS

# accents of Latin, Greek and Cyrillic letters; the voicing marks of kana make other letters
_ACCENTS = re.compile(r"[\u0300-\u036f]")
# letters that Unicode does not take apart, as names are written where a keyboard lacks them
_PLAIN_LETTERS = str.maketrans(
    {**dict(zip("đðħıłøŧ", "ddhilot", strict=True)), "æ": "ae", "œ": "oe", "þ": "th"}
)
_LONGEST_GROUP = 512  # folded, a sign can become many, and PostgreSQL indexes no long values
_AROUND_CARET = re.compile(r" *\^ *")


def folded(text: str) -> str:
    """Return a name or a part of one as it is compared, wildcards untouched."""
    apart = unicodedata.normalize("NFKD", text)
    plain = unicodedata.normalize("NFKC", _ACCENTS.sub("", apart)).casefold()
    plain = plain.translate(_PLAIN_LETTERS)
    return _AROUND_CARET.sub("^", " ".join(plain.split())).rstrip("^ ")


def folded_groups(name: str) -> dict[str, str]:
    """Return the component groups of a name, folded, by `NAME_GROUPS`; absent ones are empty."""
    groups = [folded(group)[:_LONGEST_GROUP] for group in [*name.split("="), "", ""]]
    return dict(zip(NAME_GROUPS, groups, strict=False))
