"""Tags, work states and vectors in a SQL database: the node's truth."""
