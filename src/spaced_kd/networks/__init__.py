"""A file for each family of networks, and what networks give."""
