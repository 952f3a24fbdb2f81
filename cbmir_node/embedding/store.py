"""The folder of installed models, each named by its SHA-256."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from cbmir_node.config import EmbeddingSettings
from cbmir_node.durable import sync_folder
from cbmir_node.embedding.behaviour import observe
from cbmir_node.embedding.contract import ModelDescription, file_sha256, refusal
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import ModelError
from cbmir_node.resources import resource


def shipped_model() -> Path:
    """Return the path of the model that ships with the node."""
    return resource("onnx/cbmir-two-grains.onnx")


class ModelStore:
    """Installed models.

    Parameters
    ----------
    folder : Path
        ``settings.models_path``; made when the first model is installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(self, source: Path) -> ModelDescription:
        """Check a model by running it, and keep a durable copy.

        Parameters
        ----------
        source : Path
            An ONNX file that keeps the contract. Installing it again changes nothing.

        Raises
        ------
        ModelError
            The model breaks the contract, does not run, or the copy fails.
        """
        model = EmbeddingModel.load(source, EmbeddingSettings(provider="cpu"))
        if breaches := observe(model).errors:
            raise ModelError(f"{source}: {refusal(breaches)}")
        sha256 = model.description.sha256
        target = self._folder / f"{sha256}.onnx"
        if not target.exists():
            try:
                self._copy(source, target)
            except OSError as error:
                raise ModelError(
                    f"cannot install {source} into {self._folder}: {error.strerror}"
                ) from error
        return model.description

    def path(self, sha256: str) -> Path:
        """Return an installed model's file; `ModelError` says how to install it."""
        target = self._folder / f"{sha256}.onnx"
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not target.is_file():
            raise ModelError(
                f"model {sha256[:12]} is not installed: cbmir-node model install FILE.onnx"
            )
        return target

    def installed(self) -> list[str]:
        """Return the SHA-256 of every installed model, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.onnx"))

    def _copy(self, source: Path, target: Path) -> None:
        """Copy so that a crash leaves the whole file or none under its final name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
            if file_sha256(temporary) != target.stem:
                raise ModelError(f"{source} changed while it was installed; try again")
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self._folder)
