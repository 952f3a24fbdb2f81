"""Embedding work: who waits, who is claimed, which images of a series are enough."""
