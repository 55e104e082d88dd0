"""The one exception that a user sees as a single line: it names the culprit and the remedy."""

import re

OUT_OF_MEMORY = re.compile("allocate memory|out of memory|ALLOC_FAILED|killed by signal: (Killed|Bus error)", re.I)


class UserError(Exception):
    """A mistake that the user can correct; the command line prints its text without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in a notebook instead of a traceback."""
        return [str(self)]


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch raises a class of its own for a GPU, and a RuntimeError for the host."""
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or bool(OUT_OF_MEMORY.search(str(error)))
