"""The one exception that a user sees as a single line: it names the culprit and the remedy."""


class UserError(Exception):
    """A mistake that the user can correct; the command line prints its text without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in a notebook instead of a traceback."""
        return [str(self)]
