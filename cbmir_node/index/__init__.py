"""Vector indexes: caches of the catalogue's vectors that answer nearest-neighbour queries."""
