"""Radiology-like images drawn by rules: no patient, no licence, the same for the same seed."""
