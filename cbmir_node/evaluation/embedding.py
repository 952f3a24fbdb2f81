"""Pictures → network → outputs, as the node does it, kept on disk for the next run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbmir_node.embedding.contract import ModelDescription
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.changes import Change
from cbmir_node.evaluation.items import Float32Array, Outputs
from cbmir_node.evaluation.manifest import read_picture
from cbmir_node.imaging.network_input import network_input

_PICTURES_AT_ONCE = 64
_SPACE = "space:"

Progress = Callable[[int], None]


@dataclass(frozen=True)
class OutputCache:
    """Outputs on disk, one file per model, list of pictures and change.

    Parameters
    ----------
    folder : Path
        Made when something is kept. Files in it may be deleted at any time.
    digest : str
        Of the pictures, see `Manifest`.
    """

    folder: Path
    digest: str

    def read(self, model: str, change: str) -> Outputs | None:
        """Return what was kept of a model (SHA-256) and change; ``None`` if nothing readable."""
        try:
            with np.load(self._file(model, change), allow_pickle=False) as arrays:
                return Outputs(
                    {
                        name.removeprefix(_SPACE): arrays[name]
                        for name in arrays.files
                        if name.startswith(_SPACE)
                    },
                    *(
                        arrays[name] if name in arrays.files else None
                        for name in ("codes", "predicted", "probability")
                    ),
                )
        except (FileNotFoundError, zipfile.BadZipFile, EOFError):  # absent, or cut off by a crash
            return None

    def keep(self, model: str, change: str, outputs: Outputs) -> None:
        """Write a model's outputs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"{_SPACE}{name}": vectors for name, vectors in outputs.spaces.items()}
        for name in ("codes", "predicted", "probability"):
            if (array := getattr(outputs, name)) is not None:
                arrays[name] = array
        file = self._file(model, change)
        partial = file.with_suffix(".part")
        with partial.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]  # its flag is no array
        partial.replace(file)

    def _file(self, model: str, change: str) -> Path:
        name = "".join(character if character.isalnum() else "_" for character in change)
        return self.folder / f"{model[:16]}-{self.digest[:16]}{f'-{name}' if name else ''}.npz"


def embed_files(
    model: EmbeddingModel,
    files: Sequence[Path],
    change: Change | None = None,
    progress: Progress = lambda _: None,
) -> Outputs:
    """Embed picture files as the node would, each changed before it is prepared.

    Raises
    ------
    ConfigurationError
        A file is no picture.
    ModelError
        The network fails.
    """
    parts = []
    for start in range(0, len(files), _PICTURES_AT_ONCE):
        some = files[start : start + _PICTURES_AT_ONCE]
        parts.append(embed_inputs(model, np.stack([_input(model, file, change) for file in some])))
        progress(len(some))
    return _joined(parts)


def embed_inputs(model: EmbeddingModel, inputs: Float32Array) -> Outputs:
    """Embed network inputs [N, C, H, W]."""
    embeddings = model.embed(inputs)
    predicted, probability = None, None
    if embeddings.probabilities is not None:
        best = embeddings.probabilities.argmax(axis=1)
        predicted = np.array(model.description.labels)[best]
        probability = embeddings.probabilities.max(axis=1)
    return Outputs(embeddings.spaces, embeddings.codes, predicted, probability)


def distinct_names(descriptions: Sequence[ModelDescription]) -> list[str]:
    """Return what models are called in the tables; those of one name by version and hash too.

    Raises
    ------
    ConfigurationError
        A model is given twice.
    """
    hashes = [description.sha256 for description in descriptions]
    for description in descriptions:
        if hashes.count(description.sha256) > 1:
            raise ConfigurationError(f"the model {description.name} is given twice; name it once")
    names = [description.name for description in descriptions]
    return [
        d.name if names.count(d.name) == 1 else f"{d.name}:{d.version} ({d.sha256[:6]})"
        for d in descriptions
    ]


def _input(model: EmbeddingModel, file: Path, change: Change | None) -> Float32Array:
    picture = read_picture(file)
    return network_input(
        picture if change is None else change(picture), model.description.preprocessing
    )


def _joined(parts: Sequence[Outputs]) -> Outputs:
    first = parts[0]
    return Outputs(
        {name: np.concatenate([part.spaces[name] for part in parts]) for name in first.spaces},
        *(
            None
            if getattr(first, name) is None
            else np.concatenate([getattr(part, name) for part in parts])
            for name in ("codes", "predicted", "probability")
        ),
    )
