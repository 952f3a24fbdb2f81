"""DICOM pixels → pictures → network input."""
