"""Who may use the HTTP port, and what for."""
