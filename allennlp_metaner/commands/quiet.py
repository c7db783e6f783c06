"""Commands that print their result, and not hundreds of lines before it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """
    Only errors are logged and no warnings shown, until the end of the block. Whoever sets the environment
    variable `ALLENNLP_LOG_LEVEL` or `ALLENNLP_DEBUG` wants to see all of it, and does.
    """
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
