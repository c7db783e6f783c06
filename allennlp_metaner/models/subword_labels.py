"""Labels for every subword, as in the authors' published code."""

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary

SPECIAL_LABELS = ("[CLS]", "[SEP]", "X")
"""The labels of the first and last special token, and of a word's subwords other than its first."""


class SubwordLabels:
    """
    Spreads the tags of words over all subwords, and picks the words' logits out again.

    # Parameters

    vocab : `Vocabulary`
    namespace : `str`
        Of the labels.

    # Raises

    `ConfigurationError`, if the vocabulary lacks one of the special labels.
    """

    def __init__(self, vocab: Vocabulary, namespace: str) -> None:
        known = vocab.get_token_to_index_vocabulary(namespace)
        missing = [label for label in SPECIAL_LABELS if label not in known]
        if missing:
            raise ConfigurationError(
                f"subword_labels = true needs the labels {', '.join(missing)} in the vocabulary: add "
                f'"vocabulary": {{"tokens_to_add": {{"{namespace}": {list(SPECIAL_LABELS)}}}}} to the config'
            )
        self._start, self._end, self._inside = (known[label] for label in SPECIAL_LABELS)

    def targets(self, tokens: TextFieldTensors, tags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        # Parameters

        tokens : `TextFieldTensors`
        tags : `torch.Tensor`
            Shape `(num_sentences, num_words)`.

        # Returns

        `tuple[torch.Tensor, torch.Tensor]`
            Label indices and mask, both of shape `(num_sentences, num_subwords)`.
        """
        (subwords,) = tokens.values()
        mask = subwords["wordpiece_mask"]
        targets = torch.full(mask.shape, self._inside, dtype=tags.dtype, device=tags.device)
        words = subwords["mask"]
        rows = torch.arange(len(mask), device=tags.device)
        targets[rows.unsqueeze(1).expand_as(words)[words], subwords["offsets"][..., 0][words]] = tags[words]
        targets[:, 0] = self._start
        targets[rows, mask.sum(dim=1) - 1] = self._end
        return targets, mask

    def first_subwords(self, logits: torch.Tensor, tokens: TextFieldTensors) -> torch.Tensor:
        """The logits of every word's first subword, shape `(num_sentences, num_words, num_labels)`."""
        (subwords,) = tokens.values()
        first = subwords["offsets"][..., :1]
        return logits.gather(1, first.expand(-1, -1, logits.size(2)))
