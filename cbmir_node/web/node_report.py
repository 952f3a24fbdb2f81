"""What an administrator sees of the node; these models are the API's answer as they are."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ObjectCounts(_Part):
    """Rows of the catalogue."""

    patients: int
    studies: int
    series: int
    instances: int


class EmbeddingStates(_Part):
    """Instances by state of their embedding with the active model."""

    pending: int
    embedded: int
    no_pixels: int = Field(description="they have none, or no picture")
    failed: int
    skipped: int = Field(description="a long series has enough others")


class FailedInstances(_Part):
    """Instances that could not be embedded for the same reason."""

    reason: str
    instances: int
    example_sop_instance_uid: str
    example_study_instance_uid: str
    can_be_retried: bool = Field(description="false where pixels must come again first")


class Rates(_Part):
    """What happened lately, one number for each interval, the oldest first."""

    interval_s: float
    received: list[int] = Field(description="instances that came in")
    embedded: list[int] = Field(description="instances that were embedded")
    queries: list[int] = Field(description="similarity queries, over DICOM and HTTP")


class NextModel(_Part):
    """The model that takes over when it has caught up."""

    name: str
    version: str
    pending: int = Field(description="instances that it still has to embed")


class ModelReport(_Part):
    """The model that answers queries."""

    name: str
    version: str
    sha256: str
    provider: str = Field(description="what it runs on; empty where it cannot be loaded")
    dimension: int
    next: NextModel | None


class IndexReport(_Part):
    """The index that a query without wishes searches."""

    vectors: int
    device: str = Field(description="gpu or cpu")


class DiskReport(_Part):
    """The archive and its file system."""

    free_bytes: int
    total_bytes: int
    reserve_bytes: int = Field(description="below this much free space nothing more is stored")
    archive_bytes: int = Field(description="size of the objects that are kept")


class Associations(_Part):
    """Associations of the DICOM port; all but the open ones since the start."""

    open: int
    accepted: int
    rejected: int
    aborted: int


class Forwards(_Part):
    """Objects to be sent on."""

    pending: int
    sent: int
    refused: int
    given_up: int


class DestinationReport(_Part):
    """Objects to be sent on to one destination."""

    destination: str = Field(description="AE title")
    pending: int
    sent: int
    refused: int
    given_up: int
    oldest_pending_s: float | None = Field(
        description="how long the object waits that has waited longest"
    )
    last_reason: str = Field(
        description="why it cannot be reached, or why the last object failed; empty where none did"
    )
    next_try: datetime | None = Field(
        description="set where nothing can be sent to it at the moment; it is tried again then"
    )


class LoggedTrouble(_Part):
    """A warning or an error of the node or of its worker."""

    time: datetime = Field(description="when it was logged last")
    level: str
    source: str
    message: str
    times: int = Field(description="how often")


class NodeReport(_Part):
    """The whole node at a glance."""

    problems: list[str] = Field(description="why it cannot do its work; empty when it can")
    notices: list[str] = Field(
        description="what does not keep it from its work, as a destination that does not answer"
    )
    version: str
    uptime_s: float
    objects: ObjectCounts
    states: EmbeddingStates
    failures: list[FailedInstances] = Field(description="by reason, the most frequent first")
    rates: Rates = Field(description="of the last hour at most")
    model: ModelReport
    index: IndexReport
    disk: DiskReport
    associations: Associations
    forwards: Forwards
    destinations: list[DestinationReport] = Field(
        description="what something is or was to be sent to; sent objects are forgotten in time"
    )
    errors: list[LoggedTrouble] = Field(description="the last 50, the latest first")
