"""Which received objects go where."""

from __future__ import annotations

from collections.abc import Sequence

from cbmir_node.config import ForwardingRule


class ForwardingRules:
    """The rules of ``forwarding.rules``.

    Parameters
    ----------
    rules : sequence of ForwardingRule
    """

    def __init__(self, rules: Sequence[ForwardingRule]) -> None:
        self._rules = tuple(rules)

    def destinations(self, source: str, modality: str, *, fetched: bool) -> tuple[str, ...]:
        """Return the AE titles that an object is to be sent on to, each once.

        Parameters
        ----------
        source : str
            Who sent it, or how else it came; nothing goes back there.
        modality : str
            Modality of the object.
        fetched : bool
            Whether the node got it by itself (``import``, ``pull``, a repair). Then only rules
            that name its source pass it on: filling the node must not fill other archives.
        """
        passed = [rule.to for rule in self._rules if _passes(rule, source, modality, fetched)]
        return tuple(dict.fromkeys(title for title in passed if title != source))


def _passes(rule: ForwardingRule, source: str, modality: str, fetched: bool) -> bool:
    wanted = {wanted.upper() for wanted in rule.modalities}
    if wanted and modality.upper() not in wanted:
        return False
    if rule.calling_ae_titles:
        return source in rule.calling_ae_titles
    return not fetched
