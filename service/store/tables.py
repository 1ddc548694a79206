"""The tables. Images by their bytes, jobs split into units, and what units gave."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from occluscope.analyses.contract import FIRST
from occluscope.results import ONLY, Variant
from service.store.states import DeliveryState, JobState, Priority, UnitState
from service.store.variants import VariantText

_ID: Final = 32  # hexadecimal digits of a UUID
_NAME: Final = 100
_KEPT_NAME: Final = 300
_LONG_AGO: Final = text("'1970-01-01 00:00:00.000000'")
_SHA256: Final = 64  # hexadecimal digits


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets time zones, so they are given back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


def new_id() -> str:
    """An identifier that cannot be guessed."""
    return uuid4().hex


def _one_of(column: str, states: type[JobState | UnitState | DeliveryState]) -> CheckConstraint:
    names = ", ".join(f"'{state}'" for state in states)
    return CheckConstraint(f"{column} IN ({names})", name=column)


class Blob(Base):
    """Bytes by their SHA-256 (see `service.store.blobs`). size: in bytes. put_at: when they were last put."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(_SHA256), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    put_at: Mapped[datetime] = mapped_column(index=True)
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class Image(Base):
    """A picture as it was uploaded; the same bytes stand here once.

    sha256: names the blob that has its bytes. used_at: when it was last uploaded, or a job was submitted with it.
    """

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    sha256: Mapped[str] = mapped_column(String(_SHA256), unique=True)
    format: Mapped[str] = mapped_column(String(_NAME))
    width: Mapped[int]  # pixels, upright
    height: Mapped[int]
    created_at: Mapped[datetime]
    used_at: Mapped[datetime] = mapped_column(index=True, server_default=_LONG_AGO)


class ImageOwner(Base):
    """Who has uploaded a picture. The bytes stand in `images` once, however many have."""

    __tablename__ = "image_owners"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    owner: Mapped[str] = mapped_column(String(_NAME), primary_key=True)


class Job(Base):
    """What a user asked for, and how far it is.

    model: the first of those that its units run. owner: whose it is; owners take turns.
    stored_bytes: of its results, for retention.
    version, results_version: how many changes there were, of all and of its results, see `service.store.changes`.
    idempotency_key: SHA-256 of the owner and the key they sent.
    webhook: URL that is told when the job has ended.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("state", JobState),
        Index(None, "owner", "created_at", "id"),  # an owner's list: newest first, by key
        Index(None, "owner", "state", "created_at", "id"),
        Index(None, "owner", "analysis", "created_at", "id"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    analysis: Mapped[str] = mapped_column(String(_NAME))
    model: Mapped[str] = mapped_column(String(_NAME))
    params: Mapped[dict[str, Any]]
    owner: Mapped[str] = mapped_column(String(_NAME), default="", server_default=text("''"))
    priority: Mapped[int] = mapped_column(default=Priority.BATCH, server_default=text("1"))
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    results_version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    state: Mapped[str] = mapped_column(String(_NAME))
    error: Mapped[str | None] = mapped_column(Text)
    webhook: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_sha256: Mapped[str] = mapped_column(String(_SHA256))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)

    images: Mapped[list["JobImage"]] = relationship(order_by="JobImage.position", cascade="all, delete-orphan")
    named_images: Mapped[list["NamedImage"]] = relationship(cascade="all, delete-orphan")
    stages: Mapped[list["Stage"]] = relationship(order_by="Stage.position", cascade="all, delete-orphan")
    units: Mapped[list["Unit"]] = relationship(order_by="Unit.position", cascade="all, delete-orphan")


class JobImage(Base):
    """A picture's place in a job."""

    __tablename__ = "job_images"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id"), index=True)


class NamedImage(Base):
    """A picture that a job's parameters name beside the job's own, such as a mask: its units need it too."""

    __tablename__ = "named_images"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)


class Owner(Base):
    """Whose jobs there are. webhook_secret: what their webhooks are signed with, once there was one."""

    __tablename__ = "owners"

    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    webhook_secret: Mapped[str | None] = mapped_column(String(_NAME))


class Model(Base):
    """A model that its owner described, and what a worker found it to be (see `service.store.inspections`).

    description: as `occluscope.models.card.Description`. job_id: of its inspection, while that is kept. card: as
    `occluscope.models.ModelCard`, once it was inspected. error: why it could not be.
    """

    __tablename__ = "models"
    __table_args__ = (Index(None, "owner", "name"),)

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    owner: Mapped[str] = mapped_column(String(_NAME))
    name: Mapped[str] = mapped_column(String(_NAME))
    description: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    card: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Turn(Base):
    """When an owner was last served, by priority. number: of the turn, which grows; who was never served has none."""

    __tablename__ = "turns"

    priority: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)


class ApiKey(Base):
    """What lets its owner in. id: the first digits of the key's SHA-256; the key itself is nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(_SHA256), unique=True)
    owner: Mapped[str] = mapped_column(String(_NAME))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class SignIn(Base):
    """A browser that is signed in. sha256: of the token in its cookie; the token itself is nowhere."""

    __tablename__ = "sign_ins"

    sha256: Mapped[str] = mapped_column(String(_SHA256), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Unit(Base):
    """A piece of a job that one worker does in one go.

    stage: of the analysis, or the comparison of models. model: that it runs; empty for one that compares models.
    fence: grows by one with every claim; only the holder of the current number may write.
    results_version: of its job, when what is shown of its results last changed.
    has_given: it may have given results that are hidden, as it has not succeeded; see `service.store.given`.
    attempts: claims that were not given back. outages: how often it was given back since the database was away.
    leased_until: while running, when the claim runs out unless its worker renews it.
    owner, priority, submitted_at: its job's, since units are claimed in their order. queued_at: the last time.
    """

    __tablename__ = "units"
    __table_args__ = (
        _one_of("state", UnitState),
        UniqueConstraint("job_id", "position"),
        Index(None, "state", "leased_until"),
        Index(
            "ix_units_queued",
            *("priority", "owner", "submitted_at", "job_id", "position"),
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_units_running",
            "job_id",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_units_given", "job_id", sqlite_where=text("has_given = 1"), postgresql_where=text("has_given")),
    )

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    position: Mapped[int]
    stage: Mapped[str] = mapped_column(String(_NAME), default=FIRST, server_default=text("'work'"))
    model: Mapped[str] = mapped_column(String(_NAME), server_default=text("''"))
    images: Mapped[list[Any]]  # ids, in the order the analysis wants them
    payload: Mapped[dict[str, Any]]
    owner: Mapped[str] = mapped_column(String(_NAME), default="", server_default=text("''"))
    priority: Mapped[int] = mapped_column(default=Priority.BATCH, server_default=text("1"))
    submitted_at: Mapped[datetime] = mapped_column(server_default=_LONG_AGO)
    queued_at: Mapped[datetime] = mapped_column(server_default=_LONG_AGO)
    steps_total: Mapped[int]
    steps_done: Mapped[int] = mapped_column(default=0)
    results_version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    state: Mapped[str] = mapped_column(String(_NAME))
    error: Mapped[str | None] = mapped_column(Text)
    fence: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    outages: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    has_given: Mapped[bool] = mapped_column(default=False, server_default=false())
    worker_id: Mapped[str | None] = mapped_column(String(_NAME))
    leased_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Stage(Base):
    """The units of a stage for one model, counted: so nothing need look at all of them at each end.

    Written under the job's lock alone. position: the stages' order. still_open: units that have not ended.
    steps_done: of those that have.
    """

    __tablename__ = "stages"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    model: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    position: Mapped[int]
    units: Mapped[int]
    still_open: Mapped[int]
    failed: Mapped[int] = mapped_column(default=0)
    steps_total: Mapped[int] = mapped_column(BigInteger)
    steps_done: Mapped[int] = mapped_column(BigInteger, default=0)

    @property
    def has_ended(self) -> bool:
        """Whether all of its units have."""
        return self.still_open == 0

    @property
    def succeeded(self) -> int:
        """How many of its units have, while none was cancelled."""
        return self.units - self.still_open - self.failed


class KeptArray(Base):
    """What a unit kept for later stages: an array in NPZ format; gone when the job has ended."""

    __tablename__ = "kept_arrays"

    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(_KEPT_NAME), primary_key=True)
    array: Mapped[bytes] = mapped_column(LargeBinary)


class Artifact(Base):
    """A result of a unit. meta and array: as `occluscope.results.Packed`, the array in NPY format.

    model: as its unit's.

    variant: as of `occluscope.results.NamedResult`. preview: as it stood while the unit ran; gone when that ends.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        Index(None, "job_id", "image_id", "name"),
        UniqueConstraint("unit_id", "name", "image_id", "variant", "preview"),
        Index(  # where there is no picture, as databases take no two of those for equal
            "uq_artifacts_of_no_image",
            *("unit_id", "name", "variant", "preview"),
            unique=True,
            sqlite_where=text("image_id IS NULL"),
            postgresql_where=text("image_id IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id", ondelete="CASCADE"))
    position: Mapped[int]  # in the order the analysis gave them
    model: Mapped[str] = mapped_column(String(_NAME), server_default=text("''"))
    name: Mapped[str] = mapped_column(String(_NAME))
    variant: Mapped[Variant] = mapped_column(VariantText, default=ONLY, server_default=text("''"))
    preview: Mapped[bool] = mapped_column(default=False, server_default=false())
    kind: Mapped[str] = mapped_column(String(_NAME))
    image_id: Mapped[str | None] = mapped_column(ForeignKey("images.id"), index=True)
    shape: Mapped[list[Any] | None]
    sha256: Mapped[str] = mapped_column(String(_SHA256))
    meta: Mapped[dict[str, Any]] = mapped_column(JSON, deferred=True)
    array: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)


class Metric(Base):
    """A number that a unit gave. model: as its unit's."""

    __tablename__ = "metrics"
    __table_args__ = (Index(None, "job_id", "image_id"),)

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    model: Mapped[str] = mapped_column(String(_NAME), server_default=text("''"))
    name: Mapped[str] = mapped_column(String(_NAME))
    variant: Mapped[Variant] = mapped_column(VariantText, default=ONLY, server_default=text("''"))
    value: Mapped[float]
    unit: Mapped[str | None] = mapped_column(String(_NAME))
    image_id: Mapped[str | None] = mapped_column(ForeignKey("images.id"), index=True)


class Delivery(Base):
    """That a job has ended, told to its webhook.

    owner: its job's, since owners take turns. due_at: when it is tried next. status: of HTTP, that the last attempt was
    answered with, if it was. error: why the last attempt was none.
    """

    __tablename__ = "deliveries"
    __table_args__ = (_one_of("state", DeliveryState), Index(None, "state", "owner", "due_at"))

    id: Mapped[str] = mapped_column(String(_ID), primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    owner: Mapped[str] = mapped_column(String(_NAME), default="", server_default=text("''"))
    state: Mapped[str] = mapped_column(String(_NAME))
    attempts: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class Worker(Base):
    """A worker process, seen at its last heartbeat.

    consuming: whether it takes units from the broker; a process may live on without its consumer.
    gpu_memory_bytes: what its models and computations hold there, none without a GPU.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    device: Mapped[str] = mapped_column(String(_NAME))
    consuming: Mapped[bool] = mapped_column(default=True, server_default=true())
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)


class Tally(Base):
    """A count that only grows, for what rows cannot tell once they are deleted; with it a total, such as seconds."""

    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    analysis: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    model: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[float]
