"""Commands that print their result, and not hundreds of lines before it."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """
    Only errors are logged and no warnings shown, until the end of the block. Whoever sets the environment
    variable `ALLENNLP_LOG_LEVEL` or `ALLENNLP_DEBUG` wants to see all of it, and does. Characters that the
    screen lacks are shown as question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if os.environ.get("ALLENNLP_LOG_LEVEL") or os.environ.get("ALLENNLP_DEBUG"):
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
