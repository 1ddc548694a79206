"""Where a benchmark's rows go."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows as JSON, with the moment and the machine."""
    machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    content = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
