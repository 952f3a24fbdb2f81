"""The HTTP server, in a thread of the node."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from cbmir_node.config import HttpSettings
from cbmir_node.errors import ConfigurationError
from cbmir_node.web.safety.connections import guarded_connection
from cbmir_node.web.safety.tls_connections import tls_connections

_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 10
_KEEP_ALIVE_S = 30
_ACCEPTED_AT_ONCE = 128

_log = logging.getLogger(__name__)


class HttpServer:
    """Serves an application until it is stopped.

    Parameters
    ----------
    settings : HttpSettings
        Where to listen.
    app : FastAPI
        What to serve.
    """

    def __init__(self, settings: HttpSettings, app: FastAPI) -> None:
        self._settings = settings
        self._server = uvicorn.Server(_configuration(settings, app))
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port that is really listened on."""
        assert self._socket is not None  # noqa: S101  only asked of a started server
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Listen and serve in the background.

        Raises
        ------
        ConfigurationError
            The port is taken.
        """
        host, port = self._settings.host, self._settings.port
        if not (self._settings.only_this_machine or self._settings.certificate):
            _log.warning(
                "passwords and patients' data cross the network in the clear: set http.certificate"
                " and http.private_key, or listen on loopback behind a TLS proxy (docs/security.md)"
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where the socket names its protocol; with it, an
        # answer in two writes waits 40 ms for the client's delayed acknowledgement
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"http.port: cannot listen on {host}:{port}: {error.strerror}; choose another"
            ) from error
        self._socket = listener
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._server.started:
            raise ConfigurationError(
                f"http: the server does not start on {host}:{port}; its log tells why"
            )

    def stop(self) -> None:
        """Finish running requests and stop."""
        if self._thread is None or self._socket is None:
            return
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT_S)
        self._socket.close()


def _configuration(settings: HttpSettings, app: FastAPI) -> uvicorn.Config:
    """Return what uvicorn needs to know."""
    connection = guarded_connection(settings)
    configuration = uvicorn.Config(
        app,
        loop="asyncio",  # what is tested is what runs, whatever else is installed
        http=connection,
        ws="none",
        lifespan="off",
        log_level="error",  # strangers' broken requests fill no log
        access_log=False,
        proxy_headers=False,  # anybody may send them
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        backlog=_ACCEPTED_AT_ONCE,  # so many beyond max_connections may be open for a moment
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
    )
    try:
        configuration.load()
    except (OSError, ValueError) as error:  # of TLS: all of ssl's errors are OSErrors
        raise ConfigurationError(
            f"http.certificate, http.private_key: {error}; give a PEM certificate chain and its key"
        ) from error
    if configuration.ssl is not None:
        # uvicorn takes any callable for the class
        configuration.http_protocol_class = cast(
            Any, tls_connections(connection, configuration.ssl)
        )
        configuration.ssl = None
    return configuration
