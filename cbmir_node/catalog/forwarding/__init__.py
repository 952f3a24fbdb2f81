"""The queue of objects that are sent on."""
