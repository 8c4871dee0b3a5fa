"""Errors of the commands: one sentence for the user's mistakes and for faults of the machine.

``train`` and ``test`` run other people's code, so they find out which errors explain themselves. All other
errors keep their traceback.
"""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import mmengine

from ..datasets.unreadable import UnreadableImageError
from ..utils import message_of

PACKAGE = Path(__file__).resolve().parents[1]
REGISTRY = Path(mmengine.__file__).resolve().parent / 'registry'
BUILDER = REGISTRY / 'build_functions.py'
ERRORS = (ArithmeticError, AssertionError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError)
_RESUME = 'The same command with --resume continues.'
_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal|exited)')
# of gloo and NCCL when the connection to a process is lost, or when it does not answer in time
_PEER = re.compile(
    r'Connection (?:closed|reset) by peer|Connection refused|Broken pipe|Timed out waiting|Socket Timeout'
    r'|wait timeout|[Tt]imed out after|NCCL|remote process exited',
)


Main = Callable[..., int]  # takes the arguments of the command line, returns the exit code


def refuses_mistakes(verb: str, *kinds: type[Exception]) -> Callable[[Main], Main]:
    """Make a function that prints a mistake of the user in one line instead of raising an error.

    Args:
        verb (str): The command, which begins the line.
        *kinds (type[Exception]): Errors that are mistakes, besides ``OSError`` and ``ValueError``.

    Returns:
        Callable: Decorator for the function of a command. After a mistake, the exit code is 2.
    """
    mistakes: tuple[type[Exception], ...] = (OSError, ValueError, *kinds)

    def decorate(main: Main) -> Main:
        @wraps(main)
        def checked(arguments: list[str] | None = None) -> int:
            try:
                return main(arguments)
            except mistakes as error:
                print(f'{verb}: {message_of(error)}', file=sys.stderr)
                return 2

        return checked

    return decorate


def is_explained(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this package made the error, so that its message says what to do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(PACKAGE) and (last.line or '').startswith('raise ')


def explain(error: BaseException) -> str | None:
    """Return the sentence about an error.

    Args:
        error (BaseException): The error.

    Returns:
        str or None: The sentence. None if the error needs its traceback.
    """
    message = message_of(error)
    if isinstance(error, UnreadableImageError) or is_explained(error):
        return message
    if _WORKER.search(message) or _is_lost_worker(error):
        return (
            'a worker of the data loader was killed. Linux does this when memory runs out, and logs it '
            f'(dmesg). Reduce num_workers or batch_size of train_dataloader. {_RESUME}'
        )
    if int(os.environ.get('WORLD_SIZE', 1)) > 1 and _PEER.search(message):
        return (
            'another process of the run has ended or does not answer, so this one ends, too. Its own output '
            f'says why. {_RESUME}'
        )
    return _explain_config(error, message)


def _is_lost_worker(error: BaseException) -> bool:
    """Whether the connection to a worker of the data loader broke. PyTorch notices its end later."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, OSError | EOFError) and any(
        frame.filename.endswith(('resource_sharer.py', 'reductions.py')) for frame in frames
    )


def _explain_config(error: BaseException, message: str) -> str | None:
    """Return the message of an error in MMEngine's registry, which builds the parts of a config."""
    built, last = None, None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        last = Path(frame.f_code.co_filename).resolve()
        if last == BUILDER:
            built = frame.f_locals.get('obj_cls') or built
    bad_value = isinstance(error, AssertionError | OSError | ValueError) and message
    bad_argument = isinstance(error, TypeError) and 'argument' in message
    if last is None or not (last.is_relative_to(REGISTRY) or (built and (bad_value or bad_argument))):
        return None
    # without the hint at MMEngine's pages
    sentence = ' '.join(message.split('Please check')[0].split())
    owner = getattr(built, '__name__', '')
    return f'config: {sentence}' if not owner or owner in sentence else f'config: {owner}: {sentence}'


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
    except ERRORS as error:
        with _without_news_of_children():
            message = explain(error)
            if message is not None:
                print(f'{verb}: {message}', file=sys.stderr)
        if message is None:
            raise
        raise SystemExit(1) from error


@contextmanager
def _without_news_of_children() -> Iterator[None]:
    """Switch off the signal handler of PyTorch, which raises an error when a worker ends, at any time."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'SIGCHLD'):
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
