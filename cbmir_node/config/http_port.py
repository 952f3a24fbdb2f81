"""Settings of the HTTP port: where it listens, who may use it, and how much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cbmir_node.config.section import LOOPBACK, Section, listed

_RUNS_OR_READS_HERE = (
    *("about", "blob", "data", "file", "filesystem", "javascript", "vbscript", "view-source"),
)
"""Schemes whose links would run in the page that shows them, or open what lies beside it."""

Right = Literal["read", "store", "administer"]


class _Caller(Section):
    rights: tuple[Right, ...] = Field(
        ("read",),
        description="read: search, view, send to a peer; store: add images; administer: the rest",
    )


class UserSettings(_Caller):
    """A person who logs in; the key in `HttpSettings.users` is the name."""

    password_hash: str = Field(
        pattern=r"^scrypt(\$\d+){3}(\$[A-Za-z0-9+/]+=*){2}$",
        description="what `cbmir-node access user` prints",
    )


class TokenSettings(_Caller):
    """A program that sends ``Authorization: Bearer``; the key in `HttpSettings.tokens` names it."""

    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="what `cbmir-node access token` prints"
    )


class HttpSettings(Section):
    """The HTTP port: the page, DICOMweb, health and metrics."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to listen on; other than loopback only with users or tokens",
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one")
    names: tuple[str, ...] = Field(
        (), description="host names under which clients reach it; localhost and addresses always"
    )
    certificate: Path | None = Field(None, description="TLS certificate chain, PEM")
    private_key: Path | None = Field(None, description="TLS private key, PEM")
    behind_proxy: bool = Field(
        False,
        description="take the client's address from X-Forwarded-For, which the proxy must set",
    )
    users: dict[str, UserSettings] = Field(
        default_factory=dict, description="people who log in, by name: {password_hash, rights}"
    )
    tokens: dict[str, TokenSettings] = Field(
        default_factory=dict, description="programs, by name: {sha256, rights}"
    )
    session_hours: float = Field(
        8, gt=0, description="how long an unused login lasts; a day at most"
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="origins of browser viewers that may use DICOMweb here, as https://viewer"
    )
    max_request_mib: int = Field(4096, ge=1, description="largest body of a request, MiB")
    max_example_mib: int = Field(
        256, ge=1, description="largest file dropped as an example that is not stored, MiB"
    )
    request_timeout_s: float = Field(
        30, gt=0, description="longest silence of a client within a request"
    )
    max_connections: int = Field(500, ge=1, description="connections open at the same time")
    viewers: dict[str, str] = Field(
        default_factory=dict,
        description="links to viewers by name: URL with {StudyInstanceUID} in it;"
        " a scheme that starts a program, as weasis:, too",
    )

    @property
    def only_this_machine(self) -> bool:
        """Tell whether no other machine can reach the port."""
        return LOOPBACK.match(self.host) is not None

    @property
    def needs_credentials(self) -> bool:
        """Tell whether callers have to say who they are."""
        return bool(self.users or self.tokens)

    @model_validator(mode="after")
    def _strangers_need_credentials(self) -> HttpSettings:
        if not (self.only_this_machine or self.needs_credentials):
            raise ValueError(
                f"host: {self.host} is not loopback; configure http.users or http.tokens first"
                " (`cbmir-node access`), as anybody who reaches the port could see every patient"
            )
        return self

    @model_validator(mode="after")
    def _certificate_with_key(self) -> HttpSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together")
        return self

    @field_validator("names", "allowed_origins", mode="before")
    @classmethod
    def _from_text(cls, texts: object) -> object:
        """Take ``node,node.example`` too: an environment variable holds no list."""
        return listed(texts)

    @field_validator("names")
    @classmethod
    def _only_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(f"{name}: must be a host name, without scheme and port")
        return names

    @field_validator("allowed_origins")
    @classmethod
    def _only_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9._-]+(:\d+)?", origin):
                raise ValueError(
                    f"{origin}: must be scheme, host and port in lower case, as https://viewer"
                )
        return origins

    @field_validator("viewers")
    @classmethod
    def _links_name_the_study(cls, viewers: dict[str, str]) -> dict[str, str]:
        for name, url in viewers.items():
            link = re.fullmatch(r"([a-z][a-z0-9+.-]*):[^\s\x00-\x1f]+", url)
            if link is None or "{StudyInstanceUID}" not in url:
                raise ValueError(
                    f"{name}: must be a URL with {{StudyInstanceUID}} in it; scheme in lower case,"
                    " spaces as %20"
                )
            if link[1] in _RUNS_OR_READS_HERE:
                raise ValueError(f"{name}: {link[1]}: runs or reads in the browser; name a viewer")
            if link[1] in ("http", "https") and not url.startswith(f"{link[1]}://"):
                raise ValueError(f"{name}: {link[1]}: must be followed by // and a host")
        return viewers
