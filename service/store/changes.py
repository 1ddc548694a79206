"""Changes of a job, numbered in the order in which they are committed; those of its results once more by themselves.

A number is given while the job's row is locked, and the lock is held until the commit. So whoever reads a job's version
finds every change up to it, and none with a lower number comes later.

How far running units are is not numbered. It is written often, without the job's lock, and read from their rows.
"""

from service.store.tables import Job


def next_results_version(job: Job) -> int:
    """What `results_version` is after the change that is about to be noted. job: locked by the caller."""
    return job.results_version + 1


def note_change(job: Job, *, of_results: bool = False) -> None:
    """Number a change that the job's answer shows. job: locked by the caller. of_results: its results changed too."""
    job.version += 1
    if of_results:
        job.results_version = next_results_version(job)
