"""The data plane: Celery tasks that claim a unit, run its analysis and commit what it gave."""
