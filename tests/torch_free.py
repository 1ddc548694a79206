"""Loads the control plane and every spec in a process where torch cannot be imported."""

import sys
from typing import Any, cast

for name in ("torch", "torchvision"):
    sys.modules[name] = cast("Any", None)  # makes the import fail, as where it is not installed

from occluscope import analyses
from occluscope.models import cards
from service.app import create_app
from service.cli import app as command_line
from service.settings import Settings

assert create_app(Settings(database_url="sqlite://", broker_url="redis+socket:///none.sock")).url_map
assert command_line.registered_commands
assert all(analyses.spec(name).parameters.model_json_schema() for name in analyses.names())
assert cards()
assert not any(name.startswith("torch.") for name in sys.modules)
print(f"service and {len(analyses.names())} specs load without torch")
