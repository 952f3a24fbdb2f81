"""The running node watched: counts, rates, metrics and what an administrator sees of them."""
