"""Every error the node raises on purpose.

::

    CbmirError                      base: the message is for a person and says what to do
    ├── ConfigurationError          a setting is wrong; names the key
    ├── MissingPackageError         an optional package is absent; names the extra
    ├── InvalidObjectError          received bytes are not a storable DICOM object
    │   ├── NotAnObjectError            they are no DICOM, or a media directory
    │   └── IdentifierError             its UIDs are missing, no UIDs, or not those announced
    ├── OutOfSpaceError             the disk reserve is reached
    ├── ArchiveError                the archive is not there and cannot be made
    ├── CatalogError                the catalogue cannot be opened or is of another version
    │   └── NoCatalogError              there is none yet
    ├── PeerError                   another DICOM node does not answer as it should
    │   ├── PeerUnreachableError        not now; trying later may help
    │   └── PeerRefusedError            it refuses; trying again does not help
    │       └── NothingAcceptedError        it takes none of what it is offered or asked
    ├── RejectedObjectError         an object was rejected on purpose and is not stored again
    ├── SelectionError              a command names nothing that is here, or what it cannot change
    ├── PixelError                  an object's pixels cannot become a picture
    │   ├── NoPixelsError           it has none, or they are not a picture
    │   ├── NotKeptError            they are not in the archive (any more)
    │   └── DecoderDiedError        decoding exceeded its time or memory, or crashed
    ├── DecoderUnavailableError     no decoder process can be started; no object is to blame
    ├── BusyError                   too many ask for the same at once; trying again soon helps
    ├── NotAuthorizedError          the sender may not do what the object asks for
    ├── UploadError                 a file that was dropped as an example cannot be one
    ├── ModelError                  an ONNX file breaks the contract or cannot be loaded
    ├── SnapshotError               an index snapshot is damaged or does not fit its model
    └── QueryError                  a similarity query cannot be answered
        ├── NoExampleError          it names no example
        ├── UnknownExampleError     it names an example the node does not have
        └── NotEmbeddedError        the example is known, but has no vector yet
"""


class CbmirError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is fit to be shown to a user."""


class ConfigurationError(CbmirError):
    """A setting is missing, unknown or invalid; the message names its key."""


class MissingPackageError(CbmirError):
    """An optional package is not installed; the message names the extra that brings it."""


class InvalidObjectError(CbmirError):
    """Received bytes are not a complete DICOM object with the identifiers it needs."""


class NotAnObjectError(InvalidObjectError):
    """The bytes are no DICOM at all, or a media directory: nothing that was meant to be stored."""


class IdentifierError(InvalidObjectError):
    """A UID the object needs is missing, is no UID, or is another one than was announced."""


class OutOfSpaceError(CbmirError):
    """Storing the object would eat into the configured disk reserve."""


class ArchiveError(CbmirError):
    """The archive is not there, or cannot be made."""


class CatalogError(CbmirError):
    """The catalogue cannot be opened, is locked, or has another schema version."""


class NoCatalogError(CatalogError):
    """There is no catalogue yet: nothing was ever received here."""


class PeerError(CbmirError):
    """Another DICOM node cannot be reached, rejects the node or fails."""


class PeerUnreachableError(PeerError):
    """The other node does not answer, breaks off or has no place for us now; try later."""


class PeerBusyError(PeerUnreachableError):
    """The other node rejects an association for now."""


class PeerRefusedError(PeerError):
    """The other node refuses us or what we ask or send; trying again changes nothing."""


class NothingAcceptedError(PeerRefusedError):
    """The other node accepts an association, but none of the proposed presentation contexts."""


class RejectedObjectError(CbmirError):
    """A rejection note (IHE IOCM) named this object: it was deleted and is not stored again."""


class SelectionError(CbmirError):
    """A command names no study or patient that is here, several, or one that it cannot change."""


class PixelError(CbmirError):
    """An object's pixels cannot be turned into a picture; the message is the recorded reason."""


class NoPixelsError(PixelError):
    """The object has no pixels, or its pixels are labels or doses rather than a picture."""


class NotKeptError(PixelError):
    """The node knows the object but does not have its pixels (any more)."""


class DecoderDiedError(PixelError):
    """Decoding exceeded its time or memory limit, or ended its process."""


class DecoderUnavailableError(CbmirError):
    """The decoder process cannot be started, whatever the object; decoding may be tried later."""


class BusyError(CbmirError):
    """Too many ask for the same at once; trying again soon helps."""


class NotAuthorizedError(CbmirError):
    """An object asks for something that its sender has no right to; it is not stored."""


class UploadError(CbmirError):
    """A file offered as an example is no DICOM object, PNG or JPEG picture that can be read."""


class ModelError(CbmirError):
    """An ONNX file breaks the contract, or no provider can load it."""


class SnapshotError(CbmirError):
    """An index snapshot is damaged or belongs to another vector space."""


class QueryError(CbmirError):
    """A similarity query cannot be answered as asked.

    Parameters
    ----------
    message : str
        The remedy first: DICOM's Error Comment holds 64 characters.
    field : str
        Which field of the `SimilarityQuery` is at fault; empty for none.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NoExampleError(QueryError):
    """The query names no study, series, instance or file to compare with."""


class UnknownExampleError(QueryError):
    """The query names an example that is not in the catalogue."""


class NotEmbeddedError(QueryError):
    """The example is in the catalogue but has no vector."""
