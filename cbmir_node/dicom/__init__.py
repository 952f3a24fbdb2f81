"""The wire: associations, C-STORE, C-FIND; the only room that knows pynetdicom."""

from pynetdicom import _config

# pynetdicom would format every PDU and identifier for its log, shown or not: that costs time, and
# identifiers are patients' data.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
