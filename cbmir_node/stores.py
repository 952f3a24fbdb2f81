"""Everything a node keeps, opened: archive, catalogue and installed models."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry, ModelState
from cbmir_node.catalog.statistics import has_instances
from cbmir_node.config import EmbeddingSettings, Settings
from cbmir_node.embedding.contract import ModelDescription
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import ModelStore, shipped_model
from cbmir_node.errors import ConfigurationError, ModelError
from cbmir_node.presence import is_node_running, make_data_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stores:
    """What is on disk and in the database.

    Attributes
    ----------
    archive : Archive
        Received objects.
    catalog : Catalog
        Tags, work and vectors.
    models : ModelStore
        ONNX files.
    registry : ModelRegistry
        Which of them is in use.
    """

    settings: Settings
    archive: Archive
    catalog: Catalog
    models: ModelStore
    registry: ModelRegistry

    def close(self) -> None:
        """Close the database."""
        self.catalog.close()

    def install(self, onnx_file: Path) -> InstalledModel:
        """Check an ONNX file, copy it into the data folder and enter it in the catalogue."""
        return self._enter(self.models.install(onnx_file))

    def complete_registry(self) -> None:
        """Read again what an older version of the node did not keep of its models' files."""
        for model in self.registry.all():
            if model.labels is not None:
                continue
            try:
                path = self.models.path(model.sha256)
                network = EmbeddingModel.load(path, EmbeddingSettings(provider="cpu"))
            except ModelError as error:  # a model that rests needs no file
                _log.warning("model %s:%s: %s", model.name, model.version, error)
                continue
            self._enter(network.description)

    def _enter(self, description: ModelDescription) -> InstalledModel:
        return self.registry.add(
            description.sha256,
            description.name,
            description.version,
            description.spaces,
            description.code_bits,
            description.labels,
        )

    def active_model_file(self) -> Path:
        """Return the ONNX file of the model that answers queries."""
        return self.models.path(self.registry.active().sha256)

    def use(self, model: InstalledModel) -> ModelState:
        """Make a model the one that answers queries, at once or when it has caught up.

        Raises
        ------
        ModelError
            Its file is gone or cannot be loaded.
        """
        EmbeddingModel.load(self.models.path(model.sha256), self.settings.embedding)
        return self.registry.use(model)


def open_stores(settings: Settings, *, create: bool, alone: bool = False) -> Stores:
    """Open the data folder.

    Parameters
    ----------
    settings : Settings
    create : bool
        Create what is missing, upgrade the schema and what is known of the models, and install
        the shipped model when there is none in use. The schema is left alone under a running node,
        which may be an older one.
    alone : bool
        The caller holds the data folder (`presence.only_node`).

    Raises
    ------
    CatalogError, ArchiveError, ModelError, ConfigurationError
        Something cannot be opened; the message says what to do.
    """
    if not alone:
        _must_not_leave_files_of_root(settings.archive_path)
    if create:
        make_data_folder(settings.data_dir)
    upgrade = create and (alone or not is_node_running(settings.data_dir))
    catalog = open_catalog(settings.catalog_url, create=upgrade)
    stores = Stores(
        settings,
        Archive(
            settings.archive_path,
            settings.archive.reserve_mib << 20,
            settings.archive.max_object_mib << 20,
            # a catalogue that names objects belongs to an archive that exists
            create=not has_instances(catalog),
        ),
        catalog,
        ModelStore(settings.models_path),
        ModelRegistry(catalog),
    )
    if create:
        stores.complete_registry()
    if create and not stores.registry.in_use():
        model = stores.install(shipped_model())
        stores.use(model)
        _log.info("using the shipped model %s:%s", model.name, model.version)
    return stores


def _must_not_leave_files_of_root(archive: Path) -> None:
    """Refuse root where another user's node keeps its files: it could not read root's."""
    if os.geteuid() == 0 and archive.is_dir() and archive.stat().st_uid != 0:
        raise ConfigurationError(
            f"data_dir: {archive} belongs to {archive.owner()}, and could not use what root leaves "
            f"there; run this as that user: sudo -u {archive.owner()} cbmir-node …"
        )


def process_identity() -> str:
    """Return what names this process in leases: host and process number."""
    return f"{socket.gethostname()}/{os.getpid()}"


def is_alive_here(identity: str) -> bool | None:
    """Tell whether the process behind an identity runs; ``None`` when it is on another host."""
    host, _, number = identity.rpartition("/")
    if host != socket.gethostname() or not number.isdigit():
        return None
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
