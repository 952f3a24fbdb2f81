"""How good retrieval is: metrics over labelled images."""
