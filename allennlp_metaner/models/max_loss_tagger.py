"""The tagger: transformer, first-subword pooling, dropout, linear layer, softmax; mean and max loss."""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import TextFieldEmbedder
from allennlp.nn import InitializerApplicator
from allennlp.nn.util import dist_reduce_sum, get_text_field_mask

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.sentence import LABEL_NAMESPACE
from allennlp_metaner.data.tag_schemes import closure
from allennlp_metaner.meta.test_time_adaptation import AdaptableModel, TestTimeAdaptation
from allennlp_metaner.models.decoding import Decoder
from allennlp_metaner.models.freezing import freeze_bottom
from allennlp_metaner.models.frozen_outputs import FrozenOutputs
from allennlp_metaner.models.nearest_words import NearestWords
from allennlp_metaner.models.subword_labels import SubwordLabels
from allennlp_metaner.nn.collate import Joined
from allennlp_metaner.nn.finite import check_finite
from allennlp_metaner.nn.linear import fast_linear
from allennlp_metaner.nn.max_loss import REDUCTIONS, max_loss, token_losses
from allennlp_metaner.nn.soft_labels import StudentLoss
from allennlp_metaner.nn.span_f1 import SpanF1

_COUNTING = Lock()
"""Adaptation labels several sentences at the same time, and a metric counts one after the other."""


@Model.register("max_loss_tagger")
class MaxLossTagger(FrozenOutputs, AdaptableModel):
    """
    Labels every word with a BIO tag (Eq. 1-2), trained on the mean loss of a sentence's tokens plus lambda
    times the worst one's (Eq. 3 and 13).

    Registered as a `Model` with name "max_loss_tagger".

    # Parameters

    vocab : `Vocabulary`
        Its labels are completed: each entity type has a `B-` and an `I-` tag.
    text_field_embedder : `TextFieldEmbedder`
        Gives one vector a word; with `subword_labels`, one a subword.
    dropout : `float`, optional (default = `0.1`)
        Between encoder and linear layer.
    max_loss_weight : `float`, optional (default = `2.0`)
        lambda of Eq. 13; 0 gives Eq. 3.
    loss_reduction : `str`, optional (default = `"sentence"`)
        See [`max_loss`](../nn/max_loss.md#max_loss).
    frozen_layers : `int`, optional (default = `3`)
        The embeddings and so many of the transformer's bottom layers are frozen; `None` freezes nothing.
    constrain_decoding : `bool`, optional (default = `False`)
        Find the best tag sequence that is well-formed BIO, instead of every word's best tag (the paper).
    ignored_types : `List[str]`, optional (default = `None`)
        Entity types that count as "O" wherever tags are predicted or scored: `["MISC"]` scores a model of
        four types on a corpus that has no MISC.
    subword_labels : `bool`, optional (default = `False`)
        The authors' published code: `[CLS]`, `[SEP]` and the non-first subwords ("X") have labels of their
        own, which enter the loss. Needs an embedder with `output` = "subwords", and the labels in the
        vocabulary (`tokens_to_add`).
    nearest_words : `NearestWords`, optional (default = `None`)
        Mix in the labels of similar words of the support sentences (kNN-NER), with or without adaptation,
        where sentences come with their tasks. The vectors are those of the model without adaptation.
    adaptation : `TestTimeAdaptation`, optional (default = one Adam step with a learning rate of 1e-5)
        How [`adapt_and_predict`](../meta/test_time_adaptation.md#adaptablemodel) adapts this model.
    soft_label_loss : `str`, optional (default = `"cross_entropy"`)
        Of sentences with a teacher's probabilities, the loss of a token: its distance from them, see
        [`soft_token_losses`](../nn/soft_labels.md#soft_token_losses).
    hard_label_weight : `float`, optional (default = `0.0`)
        How much the cross-entropy of the tags adds to that.
    initializer : `InitializerApplicator`, optional (default = no initialisation)

    # Raises

    `ConfigurationError`, if an argument is out of range; in prediction, if what is predicted is NaN or
    infinite.
    """

    default_predictor = "adapting"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        dropout: float = 0.1,
        max_loss_weight: float = 2.0,
        loss_reduction: str = "sentence",
        frozen_layers: Optional[int] = 3,
        constrain_decoding: bool = False,
        ignored_types: Optional[list[str]] = None,
        subword_labels: bool = False,
        nearest_words: Optional[NearestWords] = None,
        adaptation: Optional[TestTimeAdaptation] = None,
        soft_label_loss: str = "cross_entropy",
        hard_label_weight: float = 0.0,
        initializer: Optional[InitializerApplicator] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab, **kwargs)
        # AllenNLP saves the vocabulary after the model is built.
        for tag in closure(vocab.get_token_to_index_vocabulary(LABEL_NAMESPACE)):
            vocab.add_token_to_namespace(tag, LABEL_NAMESPACE)
        if loss_reduction not in REDUCTIONS:
            raise ConfigurationError(f"loss_reduction={loss_reduction!r} must be one of {REDUCTIONS}")
        if max_loss_weight < 0:
            raise ConfigurationError(f"max_loss_weight={max_loss_weight} must be at least 0")
        self.text_field_embedder = text_field_embedder
        self.dropout = torch.nn.Dropout(dropout)
        self.classifier = torch.nn.Linear(
            text_field_embedder.get_output_dim(), vocab.get_vocab_size(LABEL_NAMESPACE)
        )
        self.max_loss_weight = max_loss_weight
        self.adaptation = adaptation or TestTimeAdaptation()
        if nearest_words and subword_labels:
            raise ConfigurationError("nearest_words needs a model of words: set subword_labels = false")
        self._nearest_words = nearest_words
        self._loss_reduction = loss_reduction
        # Whether the loss of a batch is a sum: then so is that of several processes.
        self.sums_losses = loss_reduction == "sentence"
        self._student_loss = StudentLoss(soft_label_loss, hard_label_weight)
        self._subword_labels = SubwordLabels(vocab, LABEL_NAMESPACE) if subword_labels else None
        labels = vocab.get_index_to_token_vocabulary(LABEL_NAMESPACE)
        self._decoder = Decoder(labels, constrain_decoding, ignored_types or ())
        self._metric = SpanF1()
        self._num_scored = 0
        if frozen_layers is not None:
            freeze_bottom(text_field_embedder, frozen_layers)
        (initializer or InitializerApplicator())(self)

    def queries(self, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        The query of each task, with what [`forward`](#forward) needs to know of its support set.
        """
        if self._nearest_words is None:
            return [task["query"] for task in tasks]
        return self._nearest_words.queries(self._vectors, self.classifier.out_features, tasks)

    def losses(self, batches: Sequence[dict[str, Any]], max_loss_weight: float | None = None) -> torch.Tensor:
        """
        The losses of several batches of sentences, from one pass through the encoder; metrics are left alone.

        # Parameters

        batches : `Sequence[dict[str, Any]]`
            Each with the `tokens` and `tags` of [`forward`](#forward).
        max_loss_weight : `float`, optional (default = `None`)
            lambda of Eq. 13; `None` means the model's own.

        # Returns

        `torch.Tensor`
            Shape `(num_batches,)`.
        """
        joined = Joined.of(batches)
        tokens = joined.whole["tokens"]
        logits = self._logits(tokens)
        return self._loss(logits, tokens, joined.whole["tags"], max_loss_weight, sizes=joined.sizes)

    @exclusive()
    def forward(
        self,
        tokens: TextFieldTensors,
        tags: torch.LongTensor | None = None,
        metadata: list[dict[str, Any]] | None = None,
        task: list[dict[str, Any]] | None = None,
        probabilities: torch.Tensor | None = None,
        word_weights: torch.Tensor | None = None,
        neighbors: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
        tags : `torch.LongTensor`, optional (default = `None`)
            Gold tags, shape `(num_sentences, num_words)`. If given, the loss is computed and the span metric
            updated.
        metadata : `list[dict[str, Any]]`, optional (default = `None`)
        task : `list[dict[str, Any]]`, optional (default = `None`)
            The pseudo tasks of these sentences. The model labels without adaptation and looks at them for
            `nearest_words` alone; `adapt_and_predict` adapts to them.
        neighbors : `torch.Tensor`, optional (default = `None`)
            What `nearest_words` has found, see [`queries`](#queries).
        probabilities : `torch.Tensor`, optional (default = `None`)
            A teacher's, shape `(num_sentences, num_words, num_labels)`. The loss is then that of a student.
        word_weights : `torch.Tensor`, optional (default = `None`)
            With `probabilities`: how much each word counts, shape `(num_sentences, num_words)`.

        # Returns

        `dict[str, Any]`
            `logits` of shape `(num_sentences, num_words, num_labels)` (with `nearest_words`, the logarithms
            of the mixture; losses are those of the model alone), `mask` of shape
            `(num_sentences, num_words)`, `tags` (a list of strings a sentence), `words` if there is metadata,
            and, if there are gold tags, `gold_tags`, `loss` and, in evaluation, `losses`: that of each
            sentence by itself, shape `(num_sentences,)`.
        """
        mask = get_text_field_mask(tokens)
        logits = self._logits(tokens)
        word_logits = logits
        if self._subword_labels is not None:
            word_logits = self._subword_labels.first_subwords(logits, tokens)
        if self._nearest_words is not None and not self.training:
            if neighbors is None:
                neighbors = self._nearest_words.joined(self.queries(task or ()))
            word_logits = self._nearest_words.mixed(word_logits, neighbors)
        if not self.training:
            check_finite(word_logits, mask)
        predicted = self._decoder(word_logits, mask)
        output: dict[str, Any] = {"logits": word_logits, "mask": mask, "tags": predicted}
        if metadata is not None:
            output["words"] = [sentence["words"] for sentence in metadata]
        if tags is not None:
            teacher = None if probabilities is None else (probabilities, word_weights)
            output["loss"] = self._loss(logits, tokens, tags, None, teacher=teacher)
            if not self.training:
                output["losses"] = self._loss(logits, tokens, tags, None, "none", teacher)
            output["gold_tags"] = self._decoder.names(tags, mask)
            with _COUNTING:
                self._metric(predicted, output["gold_tags"])
                self._num_scored += len(predicted)
        return output

    @exclusive()
    def get_metrics(self, reset: bool = False) -> dict[str, float]:
        """
        Phrase-level precision, recall and F1, as conlleval computes them, see `SpanF1`. Nothing while no
        sentence was scored: meta-training labels none, and zeros would look like a failure.
        """
        # Of all processes, which take part in the metric together.
        if dist_reduce_sum(self._num_scored) == 0:
            return {}
        if reset:
            self._num_scored = 0
        return self._metric.get_metric(reset)

    def make_output_human_readable(self, output_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `probabilities`, see [`probabilities`](#probabilities)."""
        if "logits" in output_dict:
            output_dict["probabilities"] = self.probabilities(output_dict)
        return output_dict

    def probabilities(self, output: dict[str, Any]) -> list[list[float]]:
        """
        The softmax probability of every predicted tag, a list a sentence; that of the label "O" where a tag
        of `ignored_types` or, with `subword_labels`, a special label was predicted.
        """
        softmax = output["logits"].softmax(dim=-1).tolist()
        return [
            [row[self._decoder.index(tag)] for tag, row in zip(tags, rows, strict=False)]
            for tags, rows in zip(output["tags"], softmax, strict=True)
        ]

    def _vectors(self, tokens: TextFieldTensors) -> torch.Tensor:
        with fast_linear(self.classifier.weight.device):
            return self.text_field_embedder(tokens)

    def _logits(self, tokens: TextFieldTensors) -> torch.Tensor:
        with fast_linear(self.classifier.weight.device):
            return self.classifier(self.dropout(self.text_field_embedder(tokens)))

    def _loss(
        self,
        logits: torch.Tensor,
        tokens: TextFieldTensors,
        tags: torch.Tensor,
        max_loss_weight: float | None,
        reduction: str | None = None,
        teacher: tuple[torch.Tensor, torch.Tensor | None] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> torch.Tensor:
        mask: torch.Tensor = get_text_field_mask(tokens)
        if self._subword_labels is not None:
            tags, mask = self._subword_labels.targets(tokens, tags)
        logits = logits[:, : tags.size(1)]
        weight = self.max_loss_weight if max_loss_weight is None else max_loss_weight
        if teacher is None:
            losses = token_losses(logits, tags, mask)
        elif self._subword_labels is None:
            losses = self._student_loss(logits, tags, mask, *teacher)
        else:
            raise ConfigurationError("a student with subword_labels: a teacher's probabilities are of words")
        return max_loss(losses, mask, weight, reduction or self._loss_reduction, sizes)
