"""What leaves the catalogue again, what only loses its pixels, and what changes."""
