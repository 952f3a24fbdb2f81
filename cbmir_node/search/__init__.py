"""Examples and filters → ranked images → ranked studies."""
