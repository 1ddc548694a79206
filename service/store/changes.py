"""Versions: a job's changes are numbered in the order of their commits, and so are those of its results.

A number is given while the job's row is locked, and the lock is held until the commit. So a reader who sees a version
also sees every change up to it, and no change with a lower number is committed later.

The progress of running units is not numbered. It is written often, without the job's lock, and read from their rows.
"""

from service.store.tables import Job


def next_results_version(job: Job) -> int:
    """The `results_version` after the change that will be noted next. job: locked by the caller."""
    return job.results_version + 1


def note_change(job: Job, *, of_results: bool = False) -> None:
    """Number a change that the API shows of a job. job: locked by the caller. of_results: its results changed, too."""
    job.version += 1
    if of_results:
        job.results_version = next_results_version(job)
