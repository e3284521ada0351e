"""dockscale: label a container, and it gets a URL, starts with its first request and scales with its load."""

from importlib.metadata import version

__version__ = version("dockscale")
