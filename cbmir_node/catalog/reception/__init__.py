"""An object that arrives: its attributes as rows, and what becomes of one that is known."""
