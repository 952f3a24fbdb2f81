"""The DICOM port."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext

from cbmir_node.answers.similar import SimilaritySearcher
from cbmir_node.archive.incoming import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cbmir_node.catalog.database import Catalog
from cbmir_node.config import Settings
from cbmir_node.dicom.association import AssociationListener
from cbmir_node.dicom.contexts import (
    View,
    accepted_options,
    service_of,
    storage_services,
    supported_contexts,
)
from cbmir_node.dicom.find import FindService, Response
from cbmir_node.dicom.retrieve import RetrieveService
from cbmir_node.dicom.statistics import Statistics
from cbmir_node.dicom.store import store
from cbmir_node.errors import ConfigurationError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.intake import Intake

_log = logging.getLogger(__name__)

_POLL_S = 0.1  # the listener looks this often whether it shall stop
_REJECTED_TRANSIENT = 0x02
_PRESENTATION_PROVIDER, _TEMPORARY_CONGESTION = 0x03, 0x01


class DicomServer:
    """One TCP port, two AE titles: the called one chooses what may be asked.

    Parameters
    ----------
    settings : Settings
        Address, titles and limits; peers.
    intake : Intake
        Where received objects go.
    catalog : Catalog
        What ordinary queries and retrievals ask.
    search : SimilaritySearcher
        What similarity queries ask.

    Attributes
    ----------
    statistics : Statistics
        Counters since the start.
    """

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        catalog: Catalog,
        search: SimilaritySearcher,
    ) -> None:
        self.statistics = Statistics()
        self._settings = settings.dicom
        self._intake = intake
        self._find = FindService(settings, catalog, search, self.statistics)
        self._decoders = DecoderPool(settings.imaging)
        self._retrieve = RetrieveService(
            settings, catalog, intake.archive, self.statistics, self._decoders
        )
        self._views: dict[str, View] = {
            settings.dicom.ae_title: "main",
            settings.dicom.similarity_ae_title: "similarity",
        }
        self._listener: AssociationListener | None = None

    @property
    def port(self) -> int:
        """The TCP port listened on."""
        if self._listener is None:
            return self._settings.port
        return int(self._listener.server_address[1])

    def active_associations(self) -> int:
        """Return the number of associations being served now."""
        return 0 if self._listener is None else len(self._listener.active_associations)

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises
        ------
        ConfigurationError
            The address is not available.
        """
        address = (self._settings.host, self._settings.port)
        try:
            listener = AssociationListener(
                self._entity(),
                address,
                self._intake.archive,
                self._retrieve.serve,
                self._settings.pdu_timeout_s,
                self._handlers(),
            )
        except OSError as error:
            raise ConfigurationError(
                f"dicom.port: cannot listen on {address[0]}:{address[1]}: {error.strerror}; "
                "choose another port, or stop what uses it"
            ) from error
        listener.ae._servers.append(listener)  # shutdown() takes it out again
        threading.Thread(
            target=listener.serve_forever, args=(_POLL_S,), name="dicom-listener", daemon=True
        ).start()
        self._listener = listener
        _log.info(
            "DICOM: %s and %s on %s:%d",
            *(self._settings.ae_title, self._settings.similarity_ae_title, address[0], self.port),
        )

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop listening, let requests under way be answered, then abort the associations.

        Parameters
        ----------
        grace_s : float
            How long to wait for requests under way, seconds.
        """
        if self._listener is None:
            return
        self._listener.shutdown()
        deadline = time.monotonic() + grace_s
        while associations := self._listener.active_associations:
            out_of_time = time.monotonic() > deadline
            for association in associations:
                if out_of_time or not association.is_busy:
                    association.abort()
            if time.monotonic() > deadline + grace_s:
                _log.warning("%d associations do not end", len(associations))
                break
            time.sleep(0.02)
        self._decoders.close()
        self._listener = None

    def _entity(self) -> ApplicationEntity:
        settings = self._settings
        entity = ApplicationEntity(ae_title=settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.require_called_aet = True
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = settings.max_pdu_bytes
        entity.acse_timeout = settings.association_timeout_s
        entity.network_timeout = settings.idle_timeout_s
        entity.dimse_timeout = settings.idle_timeout_s
        return entity

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_SOP_COMMON, self._on_service_classes),
            (evt.EVT_SOP_EXTENDED, self._on_options),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_ACCEPTED, lambda _: self.statistics.count_association("accepted")),
            (evt.EVT_REJECTED, lambda _: self.statistics.count_association("rejected")),
            (evt.EVT_ABORTED, lambda _: self.statistics.count_association("aborted")),
        ]

    def _on_requested(self, event: Any) -> None:
        """Choose the view and what it supports of the proposal, before pynetdicom negotiates."""
        association = event.assoc
        request = association.requestor.primitive
        called = str(request.called_ae_title).strip()
        if called not in self._views:
            return  # pynetdicom rejects a title that is not the acceptor's
        association.view = self._views[called]
        association.acceptor.ae_title = called
        proposed = request.presentation_context_definition_list
        if self._proposes_only_storage(proposed, association.view) and not self._has_room():
            _log.warning("the disk reserve is reached; %s is rejected", request.calling_ae_title)
            association.acse.send_reject(
                _REJECTED_TRANSIENT, _PRESENTATION_PROVIDER, _TEMPORARY_CONGESTION
            )
            association.kill()  # returns when the rejection has been sent
            self.statistics.count_association("rejected")
            return
        roles = association.requestor.role_selection
        receives = {str(uid) for uid, role in roles.items() if role.scp_role}
        association.acceptor.supported_contexts = supported_contexts(
            proposed, association.view, receives
        )

    def _on_service_classes(self, event: Any) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        association = event.assoc
        proposed = association.requestor.primitive.presentation_context_definition_list
        return storage_services(proposed, association.view)

    def _on_options(self, event: Any) -> dict[UID, bytes]:
        return accepted_options(event.app_info, event.assoc.view)

    def _on_store(self, event: Any) -> Dataset:
        request, sender = event.request, str(event.assoc.requestor.ae_title)
        # what `pull` had sent here
        originator = (request.MoveOriginatorApplicationEntityTitle or "").strip()
        fetched = originator == self._settings.ae_title
        command = store(request, sender, self._intake, fetched=fetched)
        self.statistics.count_store(command.Status)
        return command

    def _on_find(self, event: Any) -> Iterator[Response]:
        return self._find.respond(event)

    def _has_room(self) -> bool:
        return self._intake.archive.has_room()

    @staticmethod
    def _proposes_only_storage(proposed: list[PresentationContext], view: View) -> bool:
        """Tell whether an association is for storage, and neither for queries nor retrievals."""
        services = {service_of(str(context.abstract_syntax), view) for context in proposed}
        return "storage" in services and not services & {"find", "move", "get"}
