"""Programs that drive machines."""
