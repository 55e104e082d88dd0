"""The training loop, and what makes it exact, resumable and parallel."""
