"""Vectors as rows, and the way from examples and filters to them and back."""
