"""Where the command line prints: what people wrote, as it is."""

import os
import sys
from typing import Final

from rich.console import Console

# Square brackets and words between colons are text, and neither rich's markup nor its emoji.
_PIPE_WIDTH: Final = 10_000  # characters: what another program reads is cut nowhere
_width: Final = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
console: Final = Console(markup=False, emoji=False, width=_width)
errors: Final = Console(stderr=True, markup=False, emoji=False)
