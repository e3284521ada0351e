"""Measurements, each a module to run. See README.md."""
