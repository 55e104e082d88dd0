"""Schedules (which role learns when), losses, and a file for each method."""
