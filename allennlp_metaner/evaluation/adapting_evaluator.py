"""`allennlp evaluate` with adaptation."""

from typing import Any, Optional, Union

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader
from allennlp.evaluation import Evaluator, Serializer, SimpleEvaluator
from allennlp.models import Model

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.evaluation.score_table import score_table
from allennlp_metaner.meta.test_time_adaptation import adaptation_of, adapts


@Evaluator.register("adapting")
class AdaptingEvaluator(SimpleEvaluator):
    """
    Labels every sentence with the parameters adapted to its support set, and goes back (Algorithm 1). The
    settings of the adaptation are the model's
    ([`TestTimeAdaptation`](../meta/test_time_adaptation.md)), so that the predictor shares them.

    Registered as an `Evaluator` with name "adapting". In a config:
    `"evaluation": {"type": "adapting"}`; at the command line, without adaptation, and likewise for the
    predictor: `-o '{"model.adaptation.enabled": false}'`.

    # Parameters

    batch_serializer : `Serializer`, optional (default = `SimpleSerializer()`)
    cuda_device : `Union[int, torch.device]`, optional (default = `-1`)
    postprocessor_fn_name : `str`, optional (default = `"make_output_human_readable"`)
    adapt : `bool`, optional (default = `None`)
        If false, sentences are labelled by the model as it is. `None`: what the model's adaptation says.
    print_scores : `bool`, optional (default = `True`)
        Whether precision, recall and F1 by type are printed to standard output; AllenNLP logs them only.

    The reported `loss` is the mean over sentences of the loss that each has by itself, whatever the batch
    size, unless `batch_weight_key` says otherwise.
    """

    def __init__(
        self,
        batch_serializer: Optional[Serializer] = None,
        cuda_device: Union[int, torch.device] = -1,
        postprocessor_fn_name: str = "make_output_human_readable",
        adapt: Optional[bool] = None,
        print_scores: bool = True,
    ) -> None:
        super().__init__(batch_serializer, cuda_device, postprocessor_fn_name)
        self._print_scores = print_scores
        self._adapt = adapt

    @exclusive()
    def __call__(
        self,
        model: Model,
        data_loader: DataLoader,
        batch_weight_key: Optional[str] = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """
        Evaluate a single data source, see `SimpleEvaluator`. The model counts what it labels, so
        evaluations in several threads wait for each other.

        # Raises

        `ConfigurationError`, if the data has no tasks to adapt to, or its reader masks words.
        """
        reader = getattr(data_loader, "reader", None)
        if reader is not None:
            refuse_masking(reader, "evaluation")
        # An evaluation that broke off would count.
        model.get_metrics(reset=True)
        labeller: Any = _Labeller(model, adapts(model, self._adapt))
        weight_key = batch_weight_key or _NUM_SENTENCES
        metrics: dict[str, Any] = super().__call__(labeller, data_loader, weight_key, *args, **kwargs)
        if self._print_scores:
            print(score_table(metrics), end="", flush=True)
        return metrics


_NUM_SENTENCES = "num_sentences"


class _Labeller:
    """
    The model as `SimpleEvaluator` sees it: the same, but its loss is the mean over the batch's sentences, and
    it may adapt to each sentence first.
    """

    def __init__(self, model: Model, adapt: bool) -> None:
        self._model = model
        self._adapt = adapt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **batch: Any) -> dict[str, Any]:
        output = self._adapted(batch) if self._adapt else self._model(**batch)
        # A model that does not tell the losses of sentences apart has one a batch, as elsewhere in AllenNLP.
        losses = output.get("losses", torch.ones(1))
        if "losses" in output:
            output["loss"] = losses.double().mean()
        output[_NUM_SENTENCES] = torch.tensor(len(losses))
        return output

    def _adapted(self, batch: dict[str, Any]) -> dict[str, Any]:
        if "task" not in batch:
            raise ConfigurationError(
                f"the evaluator 'adapting' got a batch with the fields {', '.join(batch)}, but needs 'task': "
                "make the config's validation_dataset_reader one of type 'pseudo_tasks', or set "
                "evaluation.adapt = false"
            )
        outputs = [
            self._model.make_output_human_readable(output)
            for output in adaptation_of(self._model).predict(self._model, batch["task"])
        ]
        joined: dict[str, Any] = {
            key: [value for output in outputs for value in output[key]]
            for key in ("words", "tags", "gold_tags", "probabilities")
            if key in outputs[0]
        }
        if "loss" in outputs[0]:
            joined["losses"] = torch.stack([output["loss"] for output in outputs])
            joined["loss"] = joined["losses"].mean()
        return joined
