"""Measurements: speed, memory, and the trials by which settings were chosen."""
