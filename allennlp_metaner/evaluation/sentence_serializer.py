"""Predictions as plain JSON lines: words, gold and predicted tags."""

import json
from collections.abc import Callable
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader
from allennlp.evaluation import Serializer


@Serializer.register("sentences")
class SentenceSerializer(Serializer):
    """
    What `allennlp evaluate --predictions-output-file` writes: for every sentence of the file, in its order, a
    line `{"words": [...], "gold": [...], "predicted": [...]}`. AllenNLP's own serializer writes a line a
    batch, with all of its tensors.

    Registered as a `Serializer` with name "sentences". At the command line:
    `-o '{"evaluation.batch_serializer": {"type": "sentences"}}'`.
    """

    def __call__(
        self,
        batch: dict[str, Any],
        output_dict: dict[str, Any],
        data_loader: DataLoader,
        output_postprocess_function: Optional[Callable[..., Any]] = None,
    ) -> str:
        """
        The lines of a batch, without the last line's end.

        # Raises

        `ConfigurationError`, if the sentences have no gold tags.
        """
        if not {"words", "gold_tags"} <= output_dict.keys():
            raise ConfigurationError(
                "the serializer 'sentences' needs words and gold tags, but the model returned "
                f"{', '.join(output_dict)}: evaluate the model 'max_loss_tagger' on a labelled file"
            )
        sentences = zip(output_dict["words"], output_dict["gold_tags"], output_dict["tags"], strict=True)
        return "\n".join(
            json.dumps({"words": words, "gold": gold, "predicted": predicted}, ensure_ascii=False)
            for words, gold, predicted in sentences
        )
