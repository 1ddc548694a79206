"""The consoles of the command line, which print text as it was written."""

import os
import sys
from typing import Final

from rich.console import Console

# Square brackets and words between colons are plain text here, not rich's markup or emoji.
_PIPE_WIDTH: Final = 10_000  # characters: output that another program reads is not wrapped
_width: Final = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
console: Final = Console(markup=False, emoji=False, width=_width)
errors: Final = Console(stderr=True, markup=False, emoji=False)
