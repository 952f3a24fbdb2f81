"""Received objects on disk: validate, write durably, read, sweep."""

from pydicom import config

# What a sender wrote is kept and shown as it came. Whether a UID or a length is by the book is
# checked where it matters, and a warning for each odd value of each object helps nobody.
config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE
