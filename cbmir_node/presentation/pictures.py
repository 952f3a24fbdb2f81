"""Thumbnails, renderings and values of stored images."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from cbmir_node.catalog.keys import StudyRootLevel
from cbmir_node.catalog.query.covers import cover_image
from cbmir_node.catalog.query.retrieval import stored_objects
from cbmir_node.catalog.vectors.thumbnails import read_thumbnail
from cbmir_node.config import Settings
from cbmir_node.errors import NotKeptError, SelectionError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.frame_values import FrameValues
from cbmir_node.imaging.rendering import THUMBNAIL, Rendering
from cbmir_node.presentation.decoding import decode_with
from cbmir_node.stores import Stores

_RENDERED_THUMBNAILS: Final = 1024  # of 10 kB or so

T = TypeVar("T")


class Pictures:
    """Makes pictures of stored images; safe to use from many threads.

    Parameters
    ----------
    stores : Stores
    decoders : DecoderPool
        Of the caller.

    Notes
    -----
    Whatever names an image raises `SelectionError` when the node does not have it or the frame,
    `NotKeptError` when its pixels are not kept, and what decoding raises (`PixelError` and
    `DecoderUnavailableError`).
    """

    def __init__(self, stores: Stores, decoders: DecoderPool) -> None:
        self._stores = stores
        self._decoders = decoders
        # by file and not by UID: a replaced object has another
        self._rendered_thumbnail = lru_cache(_RENDERED_THUMBNAILS)(self._render_thumbnail)

    def path(self, sop_instance_uid: str) -> Path:
        """Return an image's DICOM file, for `Explanations`."""
        keys = {"SOPInstanceUID": sop_instance_uid}
        found = stored_objects(self._stores.catalog, "IMAGE", keys) if sop_instance_uid else []
        if len(found) != 1:
            raise SelectionError(f"the node has no object {sop_instance_uid[:64]!r}; search again")
        if not found[0].path:
            raise not_kept(self._stores.settings)
        return self._stores.archive.path(found[0].path)

    def thumbnail(self, sop_instance_uid: str, frame_number: int | None = None) -> bytes:
        """Return a small JPEG, from the catalogue or else rendered.

        Parameters
        ----------
        sop_instance_uid : str
        frame_number : int, optional
            From 1; the middle one of those that stand for the image by default.
        """
        stored = read_thumbnail(self._stores.catalog, sop_instance_uid, frame_number)
        if stored is not None:
            return stored
        if frame_number is None:
            _, frame_number = self.cover("IMAGE", sop_instance_uid)
        return self._rendered_thumbnail(self.path(sop_instance_uid), frame_number)

    def rendered(self, sop_instance_uid: str, frame_number: int, rendering: Rendering) -> bytes:
        """Return a frame as JPEG or PNG."""
        path = self.path(sop_instance_uid)
        return self._decode(lambda decoder: decoder.render(path, frame_number, rendering))

    def values(self, sop_instance_uid: str, frame_number: int, longest_side: int) -> FrameValues:
        """Return a frame's values for a viewer that changes the window itself."""
        path = self.path(sop_instance_uid)
        return self._decode(lambda decoder: decoder.values(path, frame_number, longest_side))

    def cover(self, level: StudyRootLevel, uid: str) -> tuple[str, int]:
        """Return the SOP Instance UID and frame number that stand for a study, series or image."""
        found = cover_image(self._stores.catalog, level, uid)
        if found is None:
            raise SelectionError(f"the node has no image of the {level.lower()} {uid[:64]!r}")
        return found

    def _render_thumbnail(self, path: Path, frame_number: int) -> bytes:
        return self._decode(lambda decoder: decoder.render(path, frame_number, THUMBNAIL))

    def _decode(self, job: Callable[[DecoderProcess], T]) -> T:
        return decode_with(self._decoders, job)


def not_kept(settings: Settings) -> NotKeptError:
    """Return the error of an image whose pixels are not kept here: it says who has them."""
    peer = settings.retention.retrieve_from
    where = f"from {peer} (retention.retrieve_from)" if peer else "where it came from"
    return NotKeptError(f"its pixels are not kept here any more; retrieve it {where}")
