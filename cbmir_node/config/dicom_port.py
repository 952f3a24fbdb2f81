"""Settings of the DICOM port, and of the nodes that this one calls."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cbmir_node.config.section import LOOPBACK, Section


def _only_loopback(host: str) -> str:
    if not LOOPBACK.match(host):
        raise ValueError(
            "must be a loopback address: the DICOM port has no access rules, and serves this"
            " machine only"
        )
    return host


LoopbackHost = Annotated[str, AfterValidator(_only_loopback)]


def _valid_ae_title(title: str) -> str:
    if not re.fullmatch(
        r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?", title
    ):
        raise ValueError("must be 1-16 printable characters without backslash (PS3.5 VR AE)")
    return title


AETitle = Annotated[str, AfterValidator(_valid_ae_title)]


class DicomSettings(Section):
    """The DICOM wire."""

    host: LoopbackHost = Field(
        "127.0.0.1", description="address to listen on; only loopback for now"
    )
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    ae_title: AETitle = Field("CBMIR", description="title that stores and answers ordinary queries")
    similarity_ae_title: AETitle = Field(
        "CBMIR_SIM", description="title whose STUDY level C-FIND answers with similar studies"
    )
    max_associations: int = Field(100, ge=1, description="associations served at the same time")
    max_pdu_bytes: int = Field(
        131072, ge=4096, le=16777216, description="largest PDU offered and accepted"
    )
    association_timeout_s: float = Field(
        30, gt=0, description="wait for an association request or a release"
    )
    idle_timeout_s: float = Field(60, gt=0, description="wait for the next message")
    pdu_timeout_s: float = Field(30, gt=0, description="wait for the rest of a PDU once begun")
    max_find_results: int = Field(
        10000, ge=1, description="matches returned by one ordinary C-FIND"
    )
    rank_in: Literal["", "StudyDescription", "StudyID", "SeriesDescription"] = Field(
        "",
        description="text key that carries rank and similarity for viewers without private tags",
    )

    @model_validator(mode="after")
    def _distinct_ae_titles(self) -> DicomSettings:
        if self.ae_title == self.similarity_ae_title:
            raise ValueError("similarity_ae_title must differ from ae_title")
        return self


class PeerSettings(Section):
    """Another DICOM node that this one calls; its key in `Settings.peers` is its AE title."""

    host: str = Field(min_length=1, description="host name or address")
    port: int = Field(ge=1, le=65535, description="TCP port")
