"""
What AllenNLP writes itself (metrics, the files of a run, predictions) is whole, or one message names it.

AllenNLP's `train` and `predict` have no place for this, so importing the package replaces the functions with
which they write, as [`archives`](./archives.md) does.
"""

import functools
import json
import logging
from os import PathLike
from pathlib import Path
from typing import Any, Optional, Union

from allennlp.commands import predict, train
from allennlp.common import util
from allennlp.models import Model

from allennlp_metaner.atomic import check_writable, named_errors, whole_file, write_whole

logger = logging.getLogger(__name__)


def dump_metrics(file_path: Optional[str], metrics: dict[str, Any], log: bool = False) -> None:
    """
    AllenNLP's `dump_metrics`, but the file appears whole or not at all: those of a run's epochs, its
    `metrics.json`, and what `allennlp evaluate --output-file` writes.

    # Raises

    `ConfigurationError`, if it cannot be written.
    """
    content = json.dumps(metrics, indent=2)
    if file_path:
        write_whole(Path(file_path), content.encode())
    if log:
        logger.info("Metrics: %s", content)


_train_model = train.train_model


@functools.wraps(_train_model)
def train_model(
    params: Any, serialization_dir: Union[str, PathLike[str]], *args: Any, **kwargs: Any
) -> Optional[Model]:
    """
    AllenNLP's `train_model`, but where the folder of the run cannot be written, one message names it.

    # Raises

    `ConfigurationError`, if a file of the run cannot be written.
    """
    advice = "Make room and go on with `allennlp train --recover`, or give another folder"
    with named_errors(Path(serialization_dir), advice):
        model: Optional[Model] = _train_model(params, serialization_dir, *args, **kwargs)
    return model


class WholePredictions(predict._PredictManager):
    """
    AllenNLP's loop of `allennlp predict`, but `--output-file` is found out to be writable before the first
    sentence, and appears when all of them are labelled.

    # Raises

    `ConfigurationError`, if the file cannot be written.
    """

    def __init__(self, predictor: Any, input_file: str, output_file: Optional[str], *args: Any) -> None:
        super().__init__(predictor, input_file, None, *args)
        self._path = None if output_file is None else check_writable(Path(output_file))

    def run(self) -> None:
        if self._path is None:
            super().run()
            return
        # AllenNLP's loop closes the file.
        with whole_file(self._path) as temporary, temporary.open("w") as self._output_file:
            super().run()


util.dump_metrics = dump_metrics
train.train_model = train_model
predict._PredictManager = WholePredictions  # type: ignore[misc, assignment]
