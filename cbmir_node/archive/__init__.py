"""Received objects on disk: validate, write durably, read, sweep."""
