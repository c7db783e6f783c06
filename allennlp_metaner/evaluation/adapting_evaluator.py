"""`allennlp evaluate` with adaptation."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Optional, Union

import torch
from allennlp.common import Tqdm
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader
from allennlp.evaluation import Evaluator, Serializer, SimpleEvaluator
from allennlp.models import Model
from allennlp.nn.util import move_to_device

from allennlp_metaner.atomic import check_writable
from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.evaluation.processes import EvaluationProcesses, started_by_torchrun
from allennlp_metaner.evaluation.score_table import score_table
from allennlp_metaner.meta.test_time_adaptation import adaptable, adapts
from allennlp_metaner.whole_outputs import dump_metrics


@Evaluator.register("adapting")
class AdaptingEvaluator(SimpleEvaluator):
    """
    Labels every sentence with the parameters adapted to its support set, and goes back (Algorithm 1). The
    settings of the adaptation are the model's
    ([`TestTimeAdaptation`](../meta/test_time_adaptation.md)), so that the predictor shares them.

    Several processes that `torchrun` started share out the batches, and the first writes what one alone would
    write; on GPUs, each takes the one of its own number.

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
        metrics_output_file: Union[str, PathLike[str], None] = None,
        predictions_output_file: Union[str, PathLike[str], None] = None,
    ) -> dict[str, Any]:
        """
        Evaluate a single data source. The model counts what it labels, so evaluations in several threads wait
        for each other.

        # Parameters

        model : `Model`
        data_loader : `DataLoader`
        batch_weight_key : `str`, optional (default = `None`)
            The model's output by which the loss of a batch is weighted. `None` or empty: its number of
            sentences.
        metrics_output_file : `Union[str, PathLike]`, optional (default = `None`)
        predictions_output_file : `Union[str, PathLike]`, optional (default = `None`)
            Both files appear whole or not at all.

        # Returns

        `dict[str, Any]`
            The model's metrics, and `loss`.

        # Raises

        `ConfigurationError`, if the data has no tasks to adapt to, if its reader masks words, or if a file
        cannot be written.
        """
        reader = getattr(data_loader, "reader", None)
        if reader is not None:
            refuse_masking(reader, "evaluation")
        for path in (metrics_output_file, predictions_output_file):
            if path is not None:
                check_writable(Path(path))
        with started_by_torchrun() as processes:
            device = processes.place(model, self.cuda_device)
            data_loader.set_target_device(device)
            path = Path(predictions_output_file) if predictions_output_file is not None else None
            with processes.writer(path) as write:
                loss = self._evaluate(model, data_loader, batch_weight_key or None, write, processes, device)
            metrics: dict[str, Any] = model.get_metrics(reset=True)
        if loss is not None:
            metrics["loss"] = loss
        if processes.rank > 0:
            return metrics
        if metrics_output_file is not None:
            dump_metrics(str(metrics_output_file), metrics, log=True)
        if self._print_scores:
            print(score_table(metrics), end="", flush=True)
        return metrics

    def _evaluate(
        self,
        model: Model,
        data_loader: DataLoader,
        weight_key: Optional[str],
        write: Optional[Callable[[str], Any]],
        processes: EvaluationProcesses,
        device: torch.device,
    ) -> Optional[float]:
        """Label this process's sentences, which the model counts. Returns the mean loss of all, if any."""
        adapt = adapts(model, self._adapt)
        postprocess = getattr(model, self.postprocessor_fn_name, None)
        losses: list[Optional[_Weighted]] = []
        model.eval()
        # An evaluation that broke off would count.
        model.get_metrics(reset=True)
        bar = Tqdm.tqdm(processes.share(data_loader))
        for batch in bar:
            batch = move_to_device(batch, device)
            with torch.no_grad():
                output = _adapted(model, batch) if adapt else model(**batch)
            losses.append(_loss(output, weight_key))
            if processes.size == 1:
                metrics = {**model.get_metrics(), **_mean(losses)}
                bar.set_description(", ".join(_shown(metrics)) + " ||", refresh=False)
            if write is not None:
                line = self.batch_serializer(
                    batch, output, data_loader, output_postprocess_function=postprocess
                )
                write(f"{line}\n")
        losses = processes.of_all(losses)
        missing = losses.count(None)
        if 0 < missing < len(losses):
            raise ConfigurationError(
                f"{missing} of {len(losses)} batches gave no loss: evaluate a file in which all "
                "sentences have gold tags, or none"
            )
        return _mean(losses).get("loss")


_Weighted = tuple[float, float]
"""A loss and its weight."""


def _loss(output: dict[str, Any], weight_key: Optional[str]) -> Optional[_Weighted]:
    if "loss" not in output:
        return None
    # A model that does not tell the losses of sentences apart has one a batch.
    of_batch = output.get("losses", output["loss"].reshape(1))
    weight = output[weight_key].item() if weight_key else len(of_batch)
    return of_batch.double().mean().item(), weight


def _mean(losses: Sequence[Optional[_Weighted]]) -> dict[str, float]:
    known = [each for each in losses if each is not None]
    if not known:
        return {}
    return {"loss": sum(loss * weight for loss, weight in known) / sum(weight for _, weight in known)}


def _shown(metrics: dict[str, Any]) -> Iterator[str]:
    return (f"{name}: {value:.2f}" for name, value in metrics.items() if not name.startswith("_"))


def _adapted(model: Model, batch: dict[str, Any]) -> dict[str, Any]:
    """What the model returns for the batch's sentences, each adapted to its support set."""
    if "task" not in batch:
        raise ConfigurationError(
            f"the evaluator 'adapting' got a batch with the fields {', '.join(batch)}, but needs 'task': "
            "make the config's validation_dataset_reader one of type 'pseudo_tasks', or set "
            "evaluation.adapt = false"
        )
    outputs = adaptable(model).adapt_and_predict(batch["task"])
    joined: dict[str, Any] = {
        key: [value for output in outputs for value in output[key]]
        for key in ("words", "tags", "gold_tags", "probabilities")
        if key in outputs[0]
    }
    if "loss" in outputs[0]:
        joined["losses"] = torch.stack([output["loss"] for output in outputs])
        joined["loss"] = joined["losses"].mean()
    return joined
