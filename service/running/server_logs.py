"""gunicorn's own log lines, in the form of all other lines."""

from typing import Any

from gunicorn.glogging import Logger

from service.running.logs import configure_logs


class ServerLogger(Logger):  # type: ignore[misc]
    """Passes gunicorn's lines on to the root logger."""

    def setup(self, cfg: Any) -> None:
        """Set up logging; gunicorn calls this once in its first process, before any line."""
        super().setup(cfg)
        configure_logs()
        self.error_log.handlers = []
        self.error_log.propagate = True
