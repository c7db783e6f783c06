"""`allennlp metaner-diagnose`: what adaptation does to the sentences of a file."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.common.util import lazy_groups_of
from allennlp.data import Batch, Instance
from allennlp.models import Archive, Model
from allennlp.nn.util import get_device_of, move_to_device

from allennlp_metaner.analysis.diagnosis import Diagnosis, SupportLoss, as_markdown, entity_types
from allennlp_metaner.archives import load_archive
from allennlp_metaner.atomic import check_writable, write_json, write_whole
from allennlp_metaner.commands.arguments import add_archive, add_cuda_device, add_overrides, add_weights_file
from allennlp_metaner.commands.label_file import SENTENCES_PER_BATCH
from allennlp_metaner.commands.loading import task_reader
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.meta.test_time_adaptation import AdaptableModel, TestTimeAdaptation, adaptable
from allennlp_metaner.nn.collate import first_sentences
from allennlp_metaner.nn.parameters import preserved, trainable_parameters
from allennlp_metaner.predictors.adapting_predictor import AdaptingPredictor
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader

RANDOM_DRAWS = 10
"""Random support sets a sentence, as a yardstick for the retrieved one."""


@Subcommand.register("metaner-diagnose")
class Diagnose(Subcommand):
    """
    Adapts a model to the sentences of a file, also one whose config says not to adapt, and tells what that
    does: to the loss of the support sets, to tags, how large the gradients are beside the optimizer's eps,
    and whether the neighbours have the same types of entities ([`Diagnosis`](../analysis/diagnosis.md)).

    Registered as a `Subcommand` with name "metaner-diagnose".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Adapt a model to the sentences of a file and tell what that does: the loss of the support sets "
            "before and after, the size of their gradients, the tags that change and whether for the better, "
            "and whether the neighbours have the same types of entities."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Tell what adaptation does to the sentences of a file."
        )
        add_archive(subparser)
        subparser.add_argument(
            "data_file", help="a file, labelled or not, for the config's validation_dataset_reader"
        )
        subparser.add_argument(
            "--output-directory",
            help="where diagnosis.json and diagnosis.md are written; the screen shows the latter",
        )
        subparser.add_argument(
            "--max-sentences", type=int, default=200, help="how many sentences are looked at (default: 200)"
        )
        add_weights_file(subparser)
        add_cuda_device(subparser)
        add_overrides(
            subparser, "settings of the config, such as the file's layout or the adaptation's inner loop"
        )
        subparser.set_defaults(func=_run)
        return subparser


def diagnose(archive: Archive, reader: PseudoTaskReader, data_file: str, max_sentences: int) -> Diagnosis:
    """
    # Parameters

    archive : `Archive`
    reader : `PseudoTaskReader`
        The archive's.
    data_file : `str`
    max_sentences : `int`
        Looks at the first so many sentences.

    # Returns

    `Diagnosis`

    # Raises

    `ConfigurationError`, if the model cannot be adapted, or if the file has no sentences.
    """
    model = adaptable(archive.model)
    adaptation = model.adaptation
    plain, adapting = (AdaptingPredictor(model, reader, adapt) for adapt in (False, True))
    found = Diagnosis(adaptation.inner_loop.make_optimizer, _settings(adaptation))
    random = np.random.default_rng(13)
    instances = islice(reader.read(data_file), max_sentences)
    for batch in lazy_groups_of(instances, SENTENCES_PER_BATCH):
        outputs = zip(
            plain.predict_batch_instance(batch), adapting.predict_batch_instance(batch), strict=True
        )
        for instance, (before, after) in zip(batch, outputs, strict=True):
            gold = words_and_tags(instance)[1]
            found.tags.add(before["tags"], after["tags"], gold)
            types = entity_types(before["tags"] if gold is None else gold)
            neighbors = after["support"][: adaptation.num_neighbors]
            found.retrieved.add(types, [entity_types(neighbor["tags"]) for neighbor in neighbors])
            for _ in range(RANDOM_DRAWS):
                drawn = random.choice(len(reader.pool), size=len(neighbors), replace=False)
                found.random.add(types, [entity_types(reader.pool.tags[position]) for position in drawn])
        for support in _supports(model, reader, batch, adaptation.num_neighbors):
            found.losses += support_losses(model, support)
            found.gradient.add(support_gradient(model, support))
    if found.tags.sentences == 0:
        raise ConfigurationError(f"{data_file}: no sentence found; give a file with at least one")
    return found


def support_losses(model: AdaptableModel, support: dict[str, Any]) -> list[SupportLoss]:
    """
    The adaptation loss (Eq. 3, unless the adaptation has a `max_loss_weight`) of each sentence of a support
    set, before and after adaptation to it.

    # Parameters

    model : `AdaptableModel`
        A "max_loss_tagger". Its metrics count the support set.
    support : `dict[str, Any]`
        The batch of the support sentences, with tags.
    """
    with preserved(model), _max_loss_weight(model, model.adaptation.max_loss_weight):
        model.eval()
        with torch.no_grad():
            before = model(**support)["losses"]
        # The support set takes the place of the sentence to label, so that the engine itself is looked at.
        (adapted,) = model.adapt_and_predict([{"query": support, "support": support}])
    return [*map(SupportLoss, before.tolist(), adapted["losses"].tolist())]


def support_gradient(model: AdaptableModel, support: dict[str, Any]) -> list[torch.Tensor]:
    """
    The gradient of the adaptation loss of a support set, without dropout, for the parameters that adapt.

    # Parameters

    model : `AdaptableModel`
        A "max_loss_tagger".
    support : `dict[str, Any]`
        The batch of the support sentences, with tags.
    """
    adaptation = model.adaptation
    parameters = [parameter for _, parameter in adaptation.inner_loop.selected(trainable_parameters(model))]
    with preserved(model), torch.enable_grad():
        model.eval()
        loss = model.losses([support], adaptation.max_loss_weight).sum()  # type: ignore[operator]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


def _supports(
    model: Model, reader: PseudoTaskReader, instances: list[Instance], num_neighbors: Optional[int]
) -> Iterator[dict[str, Any]]:
    """The batches of the support sentences that each instance is adapted to."""
    for instance in instances:
        reader.apply_token_indexers(instance)
    batch = Batch(instances)
    batch.index_instances(model.vocab)
    device = get_device_of(next(model.parameters()))
    for task in move_to_device(batch.as_tensor_dict()["task"], device):
        yield first_sentences(task["support"], num_neighbors)


@contextmanager
def _max_loss_weight(model: Any, weight: float) -> Iterator[None]:
    own = model.max_loss_weight
    model.max_loss_weight = weight
    try:
        yield
    finally:
        model.max_loss_weight = own


def _settings(adaptation: TestTimeAdaptation) -> dict[str, Any]:
    optimizer = adaptation.inner_loop.make_optimizer([("weight", torch.nn.Parameter(torch.zeros(1)))])
    return {
        "optimizer": type(optimizer).__name__,
        "learning_rate": optimizer.defaults.get("lr"),
        "eps": optimizer.defaults.get("eps"),
        "steps": adaptation.inner_loop.num_steps,
    }


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    if arguments.max_sentences < 1:
        raise ConfigurationError(f"--max-sentences={arguments.max_sentences}: give a number above 0")
    check_for_gpu(arguments.cuda_device)
    directory = None if arguments.output_directory is None else Path(arguments.output_directory)
    if directory is not None:
        check_writable(directory / "diagnosis.json")
    archive = load_archive(
        arguments.archive_file, arguments.cuda_device, arguments.overrides, arguments.weights_file
    )
    reader = task_reader(archive.validation_dataset_reader, arguments.archive_file)
    diagnosis = diagnose(archive, reader, arguments.data_file, arguments.max_sentences)
    diagnosis.settings = {
        "archive": arguments.archive_file,
        "file": arguments.data_file,
        **({"overrides": arguments.overrides} if arguments.overrides else {}),
        **diagnosis.settings,
    }
    found = diagnosis.as_dict()
    print(as_markdown(found), end="")
    if directory is not None:
        write_json(directory / "diagnosis.json", found)
        write_whole(directory / "diagnosis.md", as_markdown(found).encode())
