"""Errors, files, seeds, devices, processes: nothing here knows of the project."""
