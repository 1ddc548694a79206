"""Every setting, from the environment (``OCCLUSCOPE_…``), with its unit in its name."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What differs between one machine and several: URLs and limits."""

    model_config = SettingsConfigDict(env_prefix="OCCLUSCOPE_", frozen=True)

    database_url: str = Field(
        default=f"sqlite:///{Path('.occluscope/occluscope.db')}",
        description="SQLAlchemy URL: sqlite:///file or postgresql+psycopg://user:password@host/name",
    )
    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Celery broker URL: redis://host:port/db or redis+socket:///path",
    )
    queue_name: str = Field(default="occluscope", description="Queue that workers consume")
    trusted_hosts: list[str] | None = Field(
        default=["localhost", "127.0.0.1", "[::1]"],
        description="Host names that requests may be addressed to; null for any, behind a proxy that checks",
    )
    api_threads: Annotated[int, Field(ge=1)] = Field(default=8, description="Threads of the API process")

    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        default=32 * 2**20, description="Largest request body, pictures included"
    )
    max_json_bytes: Annotated[int, Field(ge=1)] = Field(default=2 * 2**20, description="Largest JSON request body")
    max_images_per_job: Annotated[int, Field(ge=1)] = Field(default=10_000)
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        default=3, description="How often a unit may be claimed before it fails"
    )

    lease_seconds: Annotated[float, Field(gt=0)] = Field(
        default=30.0,
        description="A running unit whose worker has not been heard of for this long is free again",
    )
    heartbeat_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="How often a worker renews its lease and says that it is there"
    )
    progress_seconds: Annotated[float, Field(gt=0)] = Field(
        default=0.25, description="Shortest time between two writes of a unit's progress"
    )
    preview_seconds: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="Seconds between two previews of what a running unit will give"
    )
    reconcile_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="How often the reconciler looks for units that nobody was told of"
    )
    broker_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=2.0,
        description="How long publishing waits for the broker before it leaves it to the reconciler",
    )
    model_cache_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Memory for models that a worker keeps between units, with all that was prepared of them; the "
        "least recently used goes first; by default a quarter of the machine's memory, or half of the GPU's",
    )
    worker_memory_bytes: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Most memory that a worker has between units; one that has more although it gave back what it "
        "could ends, to be restarted; by default 3 GiB and, without a GPU, what its models may take",
    )
    worker_threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Threads that a worker computes with on a CPU; by default as many as there are cores. Workers "
        "on one machine should share them: together more threads than cores are slower than one worker alone",
    )
    watchdog_seconds: Annotated[float, Field(gt=0)] = Field(
        default=20.0,
        description="A worker that was given nothing for this long while units waited as long ends, to be restarted",
    )
    stall_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3600.0, description="A worker whose unit made no progress for this long ends, to be restarted"
    )
    drain_seconds: Annotated[float, Field(gt=0)] = Field(
        default=8.0,
        description="Within this time of SIGTERM the API has answered its requests and a worker given its unit back",
    )
    webhook_hosts: list[str] = Field(
        default=[], description="Hosts that webhooks may be sent to although their addresses are not public"
    )
    webhook_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default=[],
        description="Ports that webhooks may name beside 80, 443 and those from 1024 on that are no other protocol's",
    )
    webhook_attempts: Annotated[int, Field(ge=1)] = Field(
        default=10, description="How often a webhook is tried before it is given up"
    )
    webhook_retry_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="Pause before a webhook's second attempt; each further one is three times as long"
    )
    keep_days: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Jobs that ended longer ago are deleted with their results; by default none are"
    )
    max_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Most that results and pictures may take; the jobs that ended first are deleted to keep to it",
    )


@cache
def settings() -> Settings:
    """Settings of this process."""
    return Settings()
