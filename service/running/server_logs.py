"""gunicorn's own lines in the form that all others have."""

from typing import Any

from gunicorn.glogging import Logger

from service.running.logs import configure_logs


class ServerLogger(Logger):  # type: ignore[misc]
    """Hands gunicorn's lines to the root logger."""

    def setup(self, cfg: Any) -> None:
        """Called once in gunicorn's first process, before any line."""
        super().setup(cfg)
        configure_logs()
        self.error_log.handlers = []
        self.error_log.propagate = True
