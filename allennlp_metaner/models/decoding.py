"""From logits to BIO tags."""

from collections.abc import Mapping, Sequence

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.modules.conditional_random_field import allowed_transitions
from allennlp.nn.util import viterbi_decode

from allennlp_metaner.data.tag_schemes import map_labels, only_bio


class Decoder:
    """
    Picks every word's tag. Labels that are no BIO tags (the special ones of `subword_labels`) become "O".

    # Parameters

    labels : `Mapping[int, str]`
        The label of every index.
    constrained : `bool`, optional (default = `False`)
        If true, the most probable well-formed BIO sequence; if false, every word's best tag.
    ignored_types : `Sequence[str]`, optional (default = `()`)
        Entity types whose tags become "O" after the choice, such as "MISC" for a corpus that does not
        annotate it. Types that no label has are allowed.

    Its attribute `tags` has the tag that each index becomes.

    # Raises

    `ConfigurationError`, if `ignored_types` has a tag instead of an entity type.
    """

    def __init__(
        self, labels: Mapping[int, str], constrained: bool = False, ignored_types: Sequence[str] = ()
    ) -> None:
        for type_ in ignored_types:
            if type_ in ("", "O") or type_.startswith(("B-", "I-")):
                raise ConfigurationError(
                    f"ignored_types has {type_!r}, which is no entity type. Give types without prefix, such "
                    'as ["MISC"]'
                )
        names = only_bio([label for _, label in sorted(labels.items())])
        self.tags = map_labels(names, dict.fromkeys(ignored_types, "O"))
        self._indices = {label: index for index, label in labels.items()}
        self.constrained = constrained
        self.ignored_types = list(ignored_types)
        if constrained:
            number = len(names)
            allowed = set(allowed_transitions("BIO", dict(enumerate(names))))
            forbidden = torch.full((number + 2, number + 2), float("-inf"), dtype=torch.double)
            for pair in allowed:
                forbidden[pair] = 0.0
            self._transitions = forbidden[:number, :number]
            self._start = forbidden[number, :number]

    def __call__(self, logits: torch.Tensor, mask: torch.BoolTensor) -> list[list[str]]:
        """
        # Parameters

        logits : `torch.Tensor`
            Shape `(num_sentences, num_words, num_labels)`.
        mask : `torch.BoolTensor`
            Shape `(num_sentences, num_words)`.

        # Returns

        `list[list[str]]`
            A tag for every unmasked word.
        """
        if not self.constrained:
            return self.names(logits.argmax(dim=-1), mask)
        lengths = mask.sum(dim=1).tolist()
        # AllenNLP's Viterbi search works with large constants, beside which float32 loses small differences.
        scores = logits.detach().double().log_softmax(dim=-1).cpu()
        return [
            [self.tags[i] for i in self._viterbi(rows[:length])]
            for rows, length in zip(scores, lengths, strict=True)
        ]

    def names(self, indices: torch.Tensor, mask: torch.BoolTensor) -> list[list[str]]:
        """The tags of label indices, shape `(num_sentences, num_words)`, without the masked words."""
        lengths = mask.sum(dim=1).tolist()
        return [
            [self.tags[i] for i in row[:length]]
            for row, length in zip(indices.tolist(), lengths, strict=True)
        ]

    def index(self, tag: str) -> int:
        """The label index of a tag."""
        return self._indices[tag]

    def _viterbi(self, scores: torch.Tensor) -> list[int]:
        path, _ = viterbi_decode(scores, self._transitions, allowed_start_transitions=self._start)
        return path
