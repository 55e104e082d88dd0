"""The one exception that a user sees as a single line: it names the culprit and the remedy."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its text without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: IPython asks for this."""
        return [str(self)]
