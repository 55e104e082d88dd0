"""The commands of `spaced-kd`. May import every other room."""
