"""The HTTP server, in a thread of the node."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from cbmir_node.config import HttpSettings
from cbmir_node.errors import ConfigurationError

_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 10


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
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        )
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
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
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
            raise ConfigurationError(f"http: the server does not start on {host}:{port}")

    def stop(self) -> None:
        """Finish running requests and stop."""
        if self._thread is None or self._socket is None:
            return
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT_S)
        self._socket.close()
