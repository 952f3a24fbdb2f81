"""The settings of the node: one typed tree, read from several sources.

Sources, later ones win: the defaults in `settings`, a TOML file, environment variables
(``CBMIR_DICOM__PORT=11113``), command-line flags. A key that is not in the tree is an error that
names it.
"""

from cbmir_node.config.dicom_port import DicomSettings, PeerSettings
from cbmir_node.config.http_port import HttpSettings, Right, TokenSettings, UserSettings
from cbmir_node.config.loading import load_settings, setting_keys
from cbmir_node.config.settings import (
    ArchiveSettings,
    CatalogSettings,
    EmbeddingSettings,
    ForwardingRule,
    ForwardingSettings,
    ImagingSettings,
    IndexSettings,
    RetentionSettings,
    SearchSettings,
    Settings,
    WorkerSettings,
)

__all__ = [
    "ArchiveSettings",
    "CatalogSettings",
    "DicomSettings",
    "EmbeddingSettings",
    "ForwardingRule",
    "ForwardingSettings",
    "HttpSettings",
    "ImagingSettings",
    "IndexSettings",
    "PeerSettings",
    "RetentionSettings",
    "Right",
    "SearchSettings",
    "Settings",
    "TokenSettings",
    "UserSettings",
    "WorkerSettings",
    "load_settings",
    "setting_keys",
]
