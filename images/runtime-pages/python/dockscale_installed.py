"""What is installed, compared with what is asked for."""

import importlib.metadata

from pip._vendor.packaging.requirements import InvalidRequirement, Requirement


def satisfied(text, extra=""):
    """Tell whether the image has what this requirement asks for, extras included."""
    try:
        asked = Requirement(text)
    except InvalidRequirement:
        return False  # pip knows what it is, or says that it is nothing
    if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
        return True
    if asked.url:
        return False
    try:
        found = importlib.metadata.distribution(asked.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not asked.specifier.contains(found.version, prereleases=True):
        return False
    return all(satisfied(needed, each) for each in asked.extras for needed in found.requires or () if "extra" in needed)
