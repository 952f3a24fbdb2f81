"""Ordinary queries and retrievals: DICOM keys as SQL, matches and the objects they name."""
