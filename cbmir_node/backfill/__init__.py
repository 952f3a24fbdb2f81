"""Filling the node from an existing PACS: walk it, fetch what is missing."""
