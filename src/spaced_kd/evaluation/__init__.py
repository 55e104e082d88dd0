"""Measurements of trained networks: evaluators, and the analyses that they use."""
