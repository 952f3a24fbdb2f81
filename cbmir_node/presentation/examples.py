"""Examples from files that are not stored: kept for a while, then forgotten."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cbmir_node.catalog.keys import KEYS
from cbmir_node.catalog.reception.records import RECORD_KEYWORDS, read_attributes
from cbmir_node.catalog.reception.representation import frame_count
from cbmir_node.errors import UnknownExampleError, UploadError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.frame_values import FrameValues
from cbmir_node.imaging.rendering import THUMBNAIL
from cbmir_node.intake import Intake, Receipt
from cbmir_node.presentation.decoding import decode_with
from cbmir_node.presentation.example_files import ExampleKind, write_dicom_file
from cbmir_node.presentation.explanations import Prediction, best_predictions
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.presentation.uploads import Upload, Uploads
from cbmir_node.search.file_examples import example_from_frames
from cbmir_node.search.query import Example
from cbmir_node.stores import Stores
from cbmir_node.vectorizing import described_frames

LIFETIME_S: Final = 3600.0
"""An example is forgotten when nobody has used it for so long."""

MOST_EXAMPLES: Final = 100
"""Examples kept at a time; the one unused for longest is forgotten first."""

MOST_BYTES: Final = 4 << 30
"""What their files may take together; likewise, but the last one always stays."""

MOST_OF_ONE_OWNER: Final = 20
"""Likewise of those of one owner with a name, so that none pushes out what others look at."""

SOURCE: Final = "page"
"""Where the catalogue says that a stored example came from."""

MODALITY_PATTERN: Final = r"[A-Z0-9_ ]{0,16}"
"""A CS (PS3.5 section 6.2), or none."""


@dataclass(frozen=True)
class TemporaryExample:
    """A file that was dropped in.

    Attributes
    ----------
    token : str
        Names it, and cannot be guessed.
    name : str
        What the sender called the file.
    kind : {"dicom", "png", "jpeg"}
    path : Path
        A DICOM file: for pictures a Secondary Capture object.
    attributes : mapping of str to str
        Catalogue text by keyword (`catalog.keys.KEYS`).
    age_years : float or None
    example : Example
        For a `SimilarityQuery`.
    predictions : tuple of Prediction
        Most probable classes of the image, the mean over its frames, best first.
    frame_numbers : tuple of int
        Those that were embedded.
    number_of_frames : int
    """

    token: str
    name: str
    kind: ExampleKind
    path: Path
    attributes: dict[str, str]
    age_years: float | None
    example: Example
    predictions: tuple[Prediction, ...]
    frame_numbers: tuple[int, ...]
    number_of_frames: int


@dataclass
class _Kept:
    """An example, whose it is and when it was last used."""

    example: TemporaryExample
    owner: str
    size_bytes: int
    used_at: float


class TemporaryExamples:
    """Embeds and keeps dropped files; safe to use from many threads.

    Parameters
    ----------
    folder : Path
        For their files; whatever is in it is removed first.
    stores : Stores
    decoders : DecoderPool
        Of the caller.
    network : ActiveNetwork
    """

    def __init__(
        self, folder: Path, stores: Stores, decoders: DecoderPool, network: ActiveNetwork
    ) -> None:
        self._folder = folder
        self._stores = stores
        self._decoders = decoders
        self._network = network
        self._lock = threading.Lock()
        # the one used last comes last
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._uploads = Uploads(folder, stores.archive)

    def close(self) -> None:
        """Forget all examples."""
        with self._lock:
            while self._kept:
                self._forget(next(iter(self._kept)))

    def receive(self) -> AbstractContextManager[Upload]:
        """Lend an empty file to write an upload into; raises as `uploads.Uploads.receive`."""
        return self._uploads.receive()

    def add(self, file: Path, name: str, modality: str = "", owner: str = "") -> TemporaryExample:
        """Embed a file and keep a copy for a while.

        Parameters
        ----------
        file : Path
            DICOM, PNG or JPEG, told apart by content; left alone.
        name : str
            What the sender calls it.
        modality : str
            Of a picture; a DICOM object says itself.
        owner : str
            Who may use it; everybody shares those of nobody.

        Raises
        ------
        UploadError
            It is none of these, or damaged.
        PixelError, DecoderUnavailableError, ModelError, OutOfSpaceError
            It cannot be embedded or kept.
        """
        if not re.fullmatch(MODALITY_PATTERN, modality):
            raise UploadError("a modality is up to 16 capital letters and digits, as CR or MR")
        token = secrets.token_urlsafe(24)
        path = self._folder / f"{token}.dcm"
        try:
            kind = write_dicom_file(
                *(file, path),
                name=name,
                modality=modality,
                archive=self._stores.archive,
                decoders=self._decoders,
            )
            example = self._embedded(token, name, kind, path)
            self._keep(example, owner)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return example

    def get(self, token: str, owner: str = "") -> TemporaryExample:
        """Return an example and count it as used; embed it anew after a switch of the model.

        Raises
        ------
        UnknownExampleError
            It is forgotten, or somebody else's.
        PixelError, DecoderUnavailableError, ModelError
            It cannot be embedded with the model that is active now.
        """
        self.forget_unused()
        with self._lock:
            kept = self._kept.get(token)
            if kept is None or kept.owner != owner:
                raise UnknownExampleError(
                    "this file is forgotten, as nobody used it for a while: drop it again",
                    "examples",
                )
            kept.used_at = time.monotonic()
            self._kept.move_to_end(token)
            example = kept.example
        if example.example.model_sha256 == self._stores.registry.active().sha256:
            return example
        kept.example = self._embedded(token, example.name, example.kind, example.path)
        return kept.example

    def remove(self, token: str, owner: str = "") -> None:
        """Forget an example of this owner, if it is still known."""
        with self._lock:
            if token in self._kept and self._kept[token].owner == owner:
                self._forget(token)

    def forget_unused(self) -> None:
        """Forget what nobody has used for `LIFETIME_S`."""
        expired = time.monotonic() - LIFETIME_S
        with self._lock:
            while self._kept and next(iter(self._kept.values())).used_at < expired:
                self._forget(next(iter(self._kept)))

    def store(
        self, token: str, intake: Intake, owner: str = "", *, may_reject: bool = True
    ) -> Receipt:
        """Store an example for good; raises as `get` and `Intake.accept_file`."""
        path = self.get(token, owner).path
        return intake.accept_file(path, source=SOURCE, may_reject=may_reject)

    def thumbnail(self, token: str, frame_number: int, owner: str = "") -> bytes:
        """Return a small JPEG; raises as `get` and `DecoderProcess.render`."""
        path = self.get(token, owner).path
        return decode_with(
            self._decoders, lambda decoder: decoder.render(path, frame_number, THUMBNAIL)
        )

    def values(
        self, token: str, frame_number: int, longest_side: int, owner: str = ""
    ) -> FrameValues:
        """Return a frame's values; raises as `thumbnail`."""
        path = self.get(token, owner).path
        return decode_with(
            self._decoders, lambda decoder: decoder.values(path, frame_number, longest_side)
        )

    def _embedded(self, token: str, name: str, kind: ExampleKind, path: Path) -> TemporaryExample:
        network = self._network.get()
        description = network.description
        header = self._stores.archive.read_header(path, RECORD_KEYWORDS)
        frames = decode_with(
            self._decoders, lambda decoder: decoder.decode(path, description.preprocessing)
        )
        embeddings = network.embed(np.stack([frame.values for frame in frames]))
        vectors = described_frames(frames, embeddings, description.labels)
        example = example_from_frames(name, vectors, header.attributes, description.sha256)
        values = read_attributes(header.attributes)
        attributes = {key.keyword: values[key.level][key.column] for key in KEYS}
        return TemporaryExample(
            token=token,
            name=name,
            kind=kind,
            path=path,
            attributes=attributes,
            age_years=example.age_years,
            example=example,
            predictions=tuple(best_predictions(embeddings.probabilities, description.labels)),
            frame_numbers=tuple(frame.frame_number for frame in frames),
            number_of_frames=frame_count(attributes["NumberOfFrames"]),
        )

    def _keep(self, example: TemporaryExample, owner: str) -> None:
        size = example.path.stat().st_size
        with self._lock:
            self._kept[example.token] = _Kept(example, owner, size, time.monotonic())
            mine = [token for token, kept in self._kept.items() if owner and kept.owner == owner]
            for token in mine[:-MOST_OF_ONE_OWNER]:
                self._forget(token)
            while len(self._kept) > 1 and (
                len(self._kept) > MOST_EXAMPLES
                or sum(kept.size_bytes for kept in self._kept.values()) > MOST_BYTES
            ):
                self._forget(next(iter(self._kept)))

    def _forget(self, token: str) -> None:
        """Remove an example; the caller holds the lock."""
        self._kept.pop(token).example.path.unlink(missing_ok=True)
