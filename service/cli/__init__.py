"""The command line: ``occluscope``."""

from service.running.interrupts import ctrl_c_ends_at_once

with ctrl_c_ends_at_once():
    from service.cli.commands import app

__all__ = ["app"]
