"""A file for each family of networks, and the type of their outputs."""
