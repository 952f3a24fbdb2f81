"""Similar-case search for any PACS: DICOM in, similar studies out."""

__version__ = "0.1.0"
