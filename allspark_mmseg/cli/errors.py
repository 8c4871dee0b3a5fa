"""Errors of ``train`` and ``test``: one sentence for the user's mistakes, a traceback for all others."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_explained(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this package made the error, so that its message says what to do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(PACKAGE) and (last.line or '').startswith('raise ')


@contextmanager
def one_sentence(verb: str) -> Iterator[None]:
    """Print an error that explains itself without a traceback.

    Args:
        verb (str): The command, which begins the line.

    Raises:
        SystemExit: With code 1, for an error that explains itself. Others are raised as they are.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        if not is_explained(error):
            raise
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f'{verb}: {message}', file=sys.stderr)
        raise SystemExit(1) from error
