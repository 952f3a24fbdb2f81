"""Answers to queries as DICOM data sets, whichever protocol asks."""
