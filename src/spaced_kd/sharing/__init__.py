"""Finished runs as folders that others can check and use: a model card, checksums, one way out and one way in."""
