"""Where the command line prints: what people wrote, as it is."""

from typing import Final

from rich.console import Console

# Square brackets and words between colons are text, and neither rich's markup nor its emoji.
console: Final = Console(markup=False, emoji=False)
errors: Final = Console(stderr=True, markup=False, emoji=False)
