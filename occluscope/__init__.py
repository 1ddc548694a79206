"""Occluscope: what a vision model looks at, and what it does not care about.

Importing this package loads no torch; what needs it is loaded on first use.
"""

from importlib.metadata import version

__version__ = version("occluscope")
