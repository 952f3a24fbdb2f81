"""The model that answers queries, in the node's own process."""

from __future__ import annotations

import os
import threading

from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.stores import Stores


class ActiveNetwork:
    """Loads the active model when it is first asked for, and again after a switch; thread-safe.

    It takes half of the CPUs unless ``embedding.threads`` says how many, so that receiving and the
    worker go on beside it.

    Parameters
    ----------
    stores : Stores
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        threads = stores.settings.embedding.threads or max(1, (os.cpu_count() or 1) // 2)
        self._settings = stores.settings.embedding.model_copy(update={"threads": threads})
        self._loading = threading.Lock()
        self._loaded: EmbeddingModel | None = None

    def get(self) -> EmbeddingModel:
        """Return the active model.

        Raises
        ------
        ModelError
            There is none, or it cannot be loaded.
        """
        active = self._stores.registry.active()
        with self._loading:
            if self._loaded is None or self._loaded.description.sha256 != active.sha256:
                path = self._stores.models.path(active.sha256)
                self._loaded = EmbeddingModel.load(path, self._settings)
            return self._loaded
