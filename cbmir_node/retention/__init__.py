"""What leaves the node again: evicted pixels, deleted and rejected objects; and what changes."""
