"""Answers to queries and retrievals, whichever protocol asks."""
