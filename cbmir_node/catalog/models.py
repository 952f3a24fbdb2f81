"""Which models are installed, which one answers queries and which one is about to."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, exists, or_, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.catalog.work.requests import request_missing_work, waits_for_pixels
from cbmir_node.errors import ModelError

ModelState = Literal["active", "next", "installed"]

_log = logging.getLogger(__name__)
_models = schema.models.c


@dataclass(frozen=True)
class InstalledModel:
    """A model the catalogue knows.

    Attributes
    ----------
    row : int
        Its row number, which work and vector rows refer to.
    sha256 : str
        Identity of its ONNX file.
    spaces : dict of str to int
        Vector space to dimension.
    code_bits : int
        Length of its hash code, 0 when it has none.
    labels : tuple of str or None
        Its classes, empty when it has none; ``None`` where an older version of the node installed
        it, until `ModelRegistry.add` enters its file again.
    """

    row: int
    sha256: str
    name: str
    version: str
    state: ModelState
    spaces: dict[str, int]
    code_bits: int = 0
    labels: tuple[str, ...] | None = ()


class ModelRegistry:
    """The models table."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def all(self) -> list[InstalledModel]:
        """Return all models in the order of their installation."""
        with self._catalog.read() as connection:
            rows = connection.execute(select(schema.models).order_by(_models.id)).all()
        return [
            InstalledModel(
                *(r.id, r.sha256, r.name, r.version, r.state),
                spaces=json.loads(r.spaces),
                code_bits=r.code_bits,
                labels=None if r.labels is None else tuple(json.loads(r.labels)),
            )
            for r in rows
        ]

    def active(self) -> InstalledModel:
        """Return the model that answers queries."""
        for model in self.all():
            if model.state == "active":
                return model
        raise ModelError("no model is in use yet; run 'cbmir-node model use NAME'")

    def in_use(self) -> list[InstalledModel]:
        """Return the models that new instances are embedded with: the active and the next one."""
        return [model for model in self.all() if model.state != "installed"]

    def find(self, name: str) -> InstalledModel:
        """Return the model with this name, ``name:version`` or beginning of its SHA-256."""
        found = [
            model
            for model in self.all()
            if name in (model.name, f"{model.name}:{model.version}")
            or (len(name) >= 8 and model.sha256.startswith(name.lower()))
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"{m.name}:{m.version} ({m.sha256[:12]})" for m in found or self.all())
        problem = "names several models" if found else "is not installed"
        raise ModelError(f"{name!r} {problem}; choose from: {names or 'none'}")

    def add(
        self,
        sha256: str,
        name: str,
        version: str,
        spaces: dict[str, int],
        code_bits: int = 0,
        labels: Sequence[str] = (),
    ) -> InstalledModel:
        """Enter an installed file.

        Entering it again completes what an older version of the node did not keep of it, and
        leaves its state as it is.
        """
        described = {
            "spaces": json.dumps(spaces),
            "code_bits": code_bits,
            "labels": json.dumps(list(labels)),
        }
        with self._catalog.write() as connection:
            row = find_or_insert(
                connection,
                schema.models,
                {"sha256": sha256},
                {
                    "name": name,
                    "version": version,
                    "state": "installed",
                    "installed_at": time.time(),
                    **described,
                },
            )
            connection.execute(update(schema.models).where(_models.id == row).values(**described))
        return next(model for model in self.all() if model.sha256 == sha256)

    def use(self, model: InstalledModel) -> ModelState:
        """Make `model` the one that answers queries; return the state it is in now.

        With nothing received it is active at once. Otherwise it becomes the next one: the worker
        embeds everything with it, then `switch_if_ready` puts it in place.
        """
        with self._catalog.write() as connection:
            hold(connection, Lock.MODELS_IN_USE)
            if model.state == "active":
                _set_state(connection, "next", "installed")
                return "active"
            active = connection.execute(
                select(_models.id).where(_models.state == "active")
            ).scalar()
            empty = not connection.execute(select(exists(select(schema.instances.c.id)))).scalar()
            _set_state(connection, "next", "installed")
            state: ModelState = "active" if active is None or empty else "next"
            if state == "active":
                _set_state(connection, "active", "installed")
            connection.execute(
                update(schema.models).where(_models.id == model.row).values(state=state)
            )
            request_missing_work(connection, model.row, time.time())
        return state

    def switch_if_ready(self, prepared: Collection[int] | None = None) -> InstalledModel | None:
        """Put the next model in place of the active one when no answer is lost by it.

        That is when each instance with a vector of the active model has an outcome with the next
        one: a vector, or the reason why it has none, which may be that its series has enough
        others, but not that its pixels are not kept here. What neither has embedded yet does not
        count, or a steady stream of receptions would put the switch off for ever. A model that
        failed on everything is never ready.

        Parameters
        ----------
        prepared : collection of int, optional
            Rows of the models that may take over; ``None`` for all.

        Returns
        -------
        InstalledModel or None
            The new active model after a switch.
        """
        models = self.all()
        waiting = next((model for model in models if model.state == "next"), None)
        active = next((model for model in models if model.state == "active"), None)
        if waiting is None or active is None:
            return None
        if prepared is not None and waiting.row not in prepared:
            return None  # chosen after its index could be opened
        if not self._is_ready(waiting.row, active.row):
            return None
        with self._catalog.write() as connection:
            hold(connection, Lock.MODELS_IN_USE)
            request_missing_work(connection, waiting.row, time.time())
            if _is_behind(connection, waiting.row, active.row):
                return None
            chosen = select(_models.id).where(_models.state == "next")
            if connection.execute(chosen).scalar() != waiting.row:
                return None  # somebody has just chosen another one
            _set_state(connection, "active", "installed")
            connection.execute(
                update(schema.models).where(_models.id == waiting.row).values(state="active")
            )
        _log.info("model %s:%s now answers queries", waiting.name, waiting.version)
        return self.active()

    def _is_ready(self, model: int, active: int) -> bool:
        with self._catalog.read() as connection:
            if _is_behind(connection, model, active):
                return False
            vectors = schema.vectors.c
            others = exists().where(vectors.model != model)
            this = exists().where(vectors.model == model)
            others_did, this_did = connection.execute(select(others, this)).one()
        return bool(this_did or not others_did)


def _is_behind(connection: Connection, model: int, active: int) -> bool:
    """Tell whether an instance that can be found with the active model is pending for the other.

    So is one whose pixels would have to come again first.
    It is found by its vector, whatever its work state: a vector answers on until a requested new
    one replaces it.
    """
    mine, theirs = schema.work.c, schema.vectors.c
    waits = exists().where(
        mine.model == model,
        or_(mine.state == "pending", waits_for_pixels()),
        theirs.instance == mine.instance,
        theirs.model == active,
    )
    return bool(connection.execute(select(waits)).scalar())


def _set_state(connection: Connection, old: ModelState, new: ModelState) -> None:
    connection.execute(update(schema.models).where(_models.state == old).values(state=new))
