"""Sending received objects on to other nodes: rules, queue, retries."""
