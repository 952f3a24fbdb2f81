"""What keeps hostile requests from harm: limits of size and time, and headers for browsers."""
