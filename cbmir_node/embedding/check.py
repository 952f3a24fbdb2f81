"""Checks a file for being a model of the node: what it declares, then what it does."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from cbmir_node.embedding.behaviour import observe, synthetic_inputs
from cbmir_node.embedding.contract import (
    CODE,
    LOGITS,
    SALIENCY,
    Breach,
    ModelDescription,
    breaches_of,
    describe,
)
from cbmir_node.embedding.load_failures import load_failure
from cbmir_node.embedding.providers import create_session
from cbmir_node.embedding.session import EmbeddingModel, declarations
from cbmir_node.errors import ModelError

_BATCH = 8
_TIMED_S = 1.0


@dataclass(frozen=True)
class ModelCheck:
    """What `check_model` found.

    Attributes
    ----------
    errors : tuple of Breach
        Why the file cannot be installed; empty when it can.
    warnings : tuple of Breach
        What can be installed but hardly is what was meant.
    description : ModelDescription or None
        What the file says of itself; ``None`` when it does not keep the contract.
    facts : dict of str to str
        What was measured.
    """

    errors: tuple[Breach, ...]
    warnings: tuple[Breach, ...] = ()
    description: ModelDescription | None = None
    facts: dict[str, str] | None = None

    @property
    def retrieval(self) -> dict[str, str]:
        """What the model can be asked by; empty for a file that cannot be installed."""
        if self.errors or self.description is None:
            return {}
        labels, bits = len(self.description.labels), self.description.code_bits
        spaces = ", ".join(f"{n} ({d} values)" for n, d in self.description.spaces.items())
        return {
            "cosine, euclidean": spaces,
            "hamming": f"{bits} bits" if bits else f"no: there is no output {CODE!r}",
            "by class": f"{labels} classes" if labels else f"no: there is no output {LOGITS!r}",
            "saliency": "yes"
            if self.description.has_saliency
            else f"no: there is no output {SALIENCY!r}",
        }


def check_model(path: Path) -> ModelCheck:
    """Check any file; everything that is wrong is told at once.

    What it does is looked at only when what it declares is right.

    Raises
    ------
    ModelError
        The file cannot be read.
    MissingPackageError
        ONNX Runtime is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    errors: list[Breach] = []
    try:
        session = create_session(content, cuda=True)
    except ModelError as error:
        errors.append(load_failure(content, str(error)))
        try:
            session = create_session(str(path), cuda=False)  # with weights beside the file
        except ModelError:
            return ModelCheck(tuple(errors))
    declared = declarations(session)
    errors += breaches_of(**declared)
    if errors:
        return ModelCheck(tuple(errors))
    description = describe(hashlib.sha256(content).hexdigest(), **declared)
    network = EmbeddingModel(session, description, _BATCH)
    seen = observe(network)
    if not seen.errors:
        seen.facts |= {"size": f"{len(content) / 1e6:.1f} MB", "speed": _speed(network)}
    warnings = [*_doubts(description, declared["outputs"]), *seen.warnings]
    return ModelCheck(tuple(seen.errors), tuple(warnings), description, seen.facts)


def _doubts(description: ModelDescription, outputs: dict[str, object]) -> list[Breach]:
    """Return what the declarations allow but nobody means."""
    doubts = []
    wanted = description.preprocessing
    if max(map(abs, wanted.mean)) <= 1 and max(wanted.std) < 1:
        doubts.append(
            Breach(
                f"mean {list(wanted.mean)} and std {list(wanted.std)} of 'cbmir.preprocessing' "
                "look like those for pixels of 0-1",
                "multiply both by 255: the node subtracts them from grey levels of 0-255",
            )
        )
    known = {*description.spaces, LOGITS, CODE, SALIENCY}
    unused = [name for name in outputs if name not in known]
    if unused:
        doubts.append(
            Breach(
                f"the node does not use the output {', '.join(unused)}",
                "name a further vector space embedding.LAYER; leave anything else out",
            )
        )
    return doubts


def _speed(network: EmbeddingModel) -> str:
    """Return how long a picture takes, in batches as a worker runs them."""
    batch = synthetic_inputs(network.description.preprocessing)[:_BATCH]
    network.outputs(batch)
    runs, started = 0, time.perf_counter()
    while not runs or time.perf_counter() - started < _TIMED_S:
        network.outputs(batch)
        runs += 1
    each = (time.perf_counter() - started) / (runs * _BATCH)
    return (
        f"{each * 1000:.1f} ms a picture ({1 / each:.0f}/s) on {network.provider}, batch {_BATCH}"
    )
