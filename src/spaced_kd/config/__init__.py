"""What a run and a study are, the plug-in registry and the presets. Never imports torch."""
