"""Properties are checked with the same examples in each run, are bounded, and never judged by their speed."""

from hypothesis import settings

settings.register_profile("core", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("core")
