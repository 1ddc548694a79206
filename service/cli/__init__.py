"""The command line: ``occluscope``."""

from service.cli.commands import app

__all__ = ["app"]
