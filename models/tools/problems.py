"""The one error of these tools: a sentence for the user, printed without a traceback."""


class Problem(Exception):
    """Says what is wrong and what to do; the command ends with status 1."""
