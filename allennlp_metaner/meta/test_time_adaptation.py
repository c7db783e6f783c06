"""Adaptation at test time: one step on the retrieved sentences, label, go back."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Optional

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.models import Model
from allennlp.training.optimizers import AdamOptimizer

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.meta.fast_weights import AdaptedTasks, rows_of
from allennlp_metaner.meta.functional import functional_call
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.nn.collate import collate, first_sentences
from allennlp_metaner.nn.parameters import preserved, trainable_parameters


class TestTimeAdaptation(FromParams):
    """
    Algorithm 1, lines 14-19: for every test sentence, one update on its support set, then label the sentence
    with the adapted parameters, then go back to the meta parameters. The adaptation is part of the model
    ([`AdaptableModel`](#adaptablemodel)), so that evaluator and predictor share its settings.

    # Parameters

    inner_loop : `InnerLoop`, optional (default = one Adam step with a learning rate of 1e-5)
        The update. The paper writes a plain gradient step, but at gamma = 1e-5 that changes nothing. Whoever
        gives one of their own should set its `num_steps`, which is 2 if not given.
    max_loss_weight : `float`, optional (default = `0.0`)
        lambda of Eq. 13 in the adaptation loss. The paper adapts with Eq. 3, which is lambda = 0.
    dropout : `bool`, optional (default = `False`)
        Whether dropout is on during the update (it is in the authors' published code). The sentence itself
        is always labelled without.
    num_neighbors : `int`, optional (default = `None`)
        Adapt to so many of the nearest support sentences, where the retriever finds more for other uses. If
        `None`, to all of them.
    enabled : `bool`, optional (default = `True`)
        Whether evaluator and predictor adapt if they are not told. The base model's configs say no.
    """

    __test__ = False  # pytest would take the name for that of a test class.

    def __init__(
        self,
        inner_loop: Optional[InnerLoop] = None,
        max_loss_weight: float = 0.0,
        dropout: bool = False,
        num_neighbors: Optional[int] = None,
        enabled: bool = True,
    ) -> None:
        if num_neighbors is not None and num_neighbors < 1:
            raise ConfigurationError(
                f"adaptation.num_neighbors={num_neighbors} must be at least 1, or null for all; to switch "
                "adaptation off, set adaptation.enabled = false"
            )
        self.inner_loop = inner_loop or InnerLoop(optimizer=Lazy(AdamOptimizer, lr=1e-5), num_steps=1)
        self.max_loss_weight = max_loss_weight
        self._dropout = dropout
        self.num_neighbors = num_neighbors
        self.enabled = enabled

    @exclusive()
    def predict(self, model: Model, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Label the query of each task with the parameters adapted to its support set.

        Every task starts from the meta parameters. Afterwards, also after an exception, `model` is bit for
        bit what it was, see [`preserved`](../nn/parameters.md#preserved). Its metrics have seen the queries,
        and nothing else. Callers in several threads wait for each other, see
        [`exclusive`](../concurrency.md#exclusive).

        # Parameters

        model : `Model`
            A model with a `loss`, see [`Learner`](./fast_weights.md#learner).
        tasks : `Sequence[dict[str, Any]]`
            Each with a "query" and a "support" batch, as `TaskField` makes them.

        # Returns

        `list[dict[str, Any]]`
            What `model` returns for each query, possibly padded as long as others. A `loss` is the query's
            own if `model` returns `losses`, one a sentence, or else the mean.
        """
        if torch.is_inference_mode_enabled():
            # No gradient goes through tensors that were made in this mode, but through copies made outside.
            with torch.inference_mode(False):
                return self.predict(model, copy.deepcopy(list(tasks)))
        with preserved(model):
            # With dropout, a sentence has the same result in any order and any company only if it is alone.
            size = 1 if self._dropout else max(1, len(tasks))
            return [
                output
                for first in range(0, len(tasks), size)
                for output in self._predict_together(model, tasks[first : first + size])
            ]

    def _predict_together(self, model: Model, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        model.eval()
        queries = _queries(model, tasks)
        model.train(self._dropout)
        results = self.inner_loop.adapt_and_predict(
            partial(_predict, model),
            model,  # type: ignore[arg-type]
            trainable_parameters(model),
            [first_sentences(task["support"], self.num_neighbors) for task in tasks],
            queries,
            self.max_loss_weight,
        )
        outputs: list[dict[str, Any]] = [{}] * len(tasks)
        for indices, predicted in results:
            for index, output in zip(indices, predicted, strict=True):
                outputs[index] = output
        return outputs


def _queries(model: Model, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks' queries, with what the model takes from their support sets besides adaptation."""
    queries: Any = getattr(model, "queries", None)
    return queries(tasks) if queries else [task["query"] for task in tasks]


def _predict(model: Model, adapted: AdaptedTasks) -> list[dict[str, Any]]:
    """The outputs of the queries at the fast weights, without dropout."""
    if model.training:
        model.eval()
    rows = rows_of(model, adapted.queries)  # type: ignore[arg-type]
    with functional_call(adapted.parameters, adapted.weights, rows):
        return _apart(model(**collate(adapted.queries)), len(adapted.queries))


def _apart(output: dict[str, Any], num_queries: int) -> list[dict[str, Any]]:
    """The output of each query, from what the model returned for all of them."""
    if num_queries == 1:
        return [output]
    parts = {
        key: value.split(1) if isinstance(value, torch.Tensor) else [[entry] for entry in value]
        for key, value in output.items()
        if key != "loss"
    }
    apart = [{key: part[number] for key, part in parts.items()} for number in range(num_queries)]
    if "loss" in output:
        losses = output.get("losses", output["loss"].expand(num_queries) / num_queries)
        for own, loss in zip(apart, losses.unbind(), strict=True):
            own["loss"] = loss
    return apart


class AdaptableModel(Model):
    """
    A model that is adapted to the sentences that it labels. It carries the settings of that, so that
    evaluator, predictor and teachers share them.
    """

    adaptation: TestTimeAdaptation

    def adapt_and_predict(self, tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Label the query of each task with the parameters adapted to its support set, and go back
        (Algorithm 1), see [`TestTimeAdaptation.predict`](#predict).

        # Parameters

        tasks : `Sequence[dict[str, Any]]`
            Each with a "query" and a "support" batch, as `TaskField` makes them.

        # Returns

        `list[dict[str, Any]]`
            For each query what [`make_output_human_readable`](../models/max_loss_tagger.md) makes of the
            model's output.
        """
        return [self.make_output_human_readable(output) for output in self.adaptation.predict(self, tasks)]


def adaptable(model: Model) -> AdaptableModel:
    """
    The same model.

    # Raises

    `ConfigurationError`, if it cannot be adapted.
    """
    if not isinstance(model, AdaptableModel):
        raise ConfigurationError(
            f"the model {type(model).__name__} cannot be adapted, since it carries no 'adaptation': use "
            "'max_loss_tagger', or switch adaptation off (adapt = false)"
        )
    return model


def adapts(model: Model, adapt: Optional[bool] = None) -> bool:
    """
    Whether `model` is to be adapted: what the caller says, or else what its adaptation says. A model without
    an adaptation is not.

    # Parameters

    model : `Model`
    adapt : `bool`, optional (default = `None`)
        What the caller says.
    """
    if adapt is None:
        return isinstance(model, AdaptableModel) and model.adaptation.enabled
    return adapt
