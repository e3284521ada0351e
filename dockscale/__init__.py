"""dockscale: label a container, and it gets a URL, starts with its first request and scales with its load."""


def __getattr__(name: str) -> str:
    """Find out `__version__`, which takes longer than most verbs of the command line."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # this is what takes so long

        return version("dockscale")
    raise AttributeError(name)
