"""`allennlp metaner-cases`: a page with the sentences that two models label differently."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.common.util import lazy_groups_of
from allennlp.models import Archive

from allennlp_metaner.analysis.case_page import Side, render
from allennlp_metaner.analysis.case_studies import Case, SupportSentence, find_differences
from allennlp_metaner.archives import check_archive, load_archive
from allennlp_metaner.atomic import check_writable, write_whole
from allennlp_metaner.commands.arguments import add_cuda_device, add_overrides
from allennlp_metaner.commands.label_file import SENTENCES_PER_BATCH, label_file
from allennlp_metaner.commands.loading import merged, task_reader
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.characters import encodable
from allennlp_metaner.meta.test_time_adaptation import adapts
from allennlp_metaner.predictors.adapting_predictor import AdaptingPredictor


@Subcommand.register("metaner-cases")
class Cases(Subcommand):
    """
    Labels a file with two archives, usually of the base model and of one that is adapted, and writes a page
    ([`render`](../analysis/case_page.md#render)) that shows the sentences in which they differ, and what the
    adapted model retrieved for them.

    Registered as a `Subcommand` with name "metaner-cases".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Label a file with two models, and write a page in HTML with the sentences in which they differ: "
            "the entities of both and the gold ones, and the source sentences that were retrieved."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Show sentences that two models label differently."
        )
        subparser.add_argument("base_archive", help="an archive or a serialization directory")
        subparser.add_argument(
            "adapted_archive", help="another one, or the same with other settings; it reads the file"
        )
        subparser.add_argument(
            "data_file", help="a file, labelled or not, for the config's validation_dataset_reader"
        )
        subparser.add_argument(
            "-o", "--output-file", required=True, metavar="PAGE.html", help="where the page is written"
        )
        add_overrides(subparser, "settings of both configs, such as the file's layout", output=True)
        subparser.add_argument(
            "--base-overrides",
            default="",
            help="further ones for the base model alone; without adaptation: "
            "'{\"model.adaptation.enabled\": false}'",
        )
        subparser.add_argument(
            "--adapted-overrides", default="", help="further ones for the adapted model alone"
        )
        subparser.add_argument(
            "--max-cases", type=int, default=200, help="how many sentences are shown at most (default: 200)"
        )
        add_cuda_device(subparser)
        subparser.set_defaults(func=_run)
        return subparser


def label_with_both(base: Archive, adapted: Archive, data_file: str) -> Iterator[Case]:
    """
    # Parameters

    base : `Archive`
    adapted : `Archive`
        Its validation reader reads the file, for both.
    data_file : `str`

    # Returns

    `Iterator[Case]`
        The sentences of `data_file`, in order, also those in which the two do not differ.
    """
    base_predictor = AdaptingPredictor(base.model, base.validation_dataset_reader)
    adapted_predictor = AdaptingPredictor(adapted.model, adapted.validation_dataset_reader)
    labelled = label_file(adapted_predictor, adapted.validation_dataset_reader, data_file)
    number = 0
    for batch in lazy_groups_of(labelled, SENTENCES_PER_BATCH):
        instances = base_predictor.instances([sentence.words for sentence in batch])
        outputs = base_predictor.predict_batch_instance(instances)
        for (words, gold, output), base_output in zip(batch, outputs, strict=True):
            number += 1
            support = [SupportSentence(**sentence) for sentence in output.get("support", ())]
            yield Case(number, words, gold, base_output["tags"], output["tags"], support)


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    # First of all what is wrong at once: labelling may take long.
    page = _page_path(arguments.output_file)
    if arguments.max_cases < 1:
        raise ConfigurationError(f"--max-cases={arguments.max_cases}: give a number above 0")
    check_for_gpu(arguments.cuda_device)
    base_overrides = arguments.overrides, arguments.base_overrides
    adapted_overrides = arguments.overrides, arguments.adapted_overrides
    check_archive(arguments.base_archive)
    adapted = _load(arguments.adapted_archive, arguments.cuda_device, merged(*adapted_overrides))
    base = _load(arguments.base_archive, arguments.cuda_device, merged(*base_overrides))
    differences = find_differences(label_with_both(base, adapted, arguments.data_file), arguments.max_cases)
    sides = (
        Side(arguments.base_archive, adapts(base.model), [*filter(None, base_overrides)]),
        Side(arguments.adapted_archive, adapts(adapted.model), [*filter(None, adapted_overrides)]),
    )
    write_whole(page, encodable(render(differences, *sides, arguments.data_file)).encode())
    print(f"{page}: {differences.differing} of {differences.sentences} sentences differ")


def _load(archive_file: str, cuda_device: int, overrides: str) -> Archive:
    archive = load_archive(archive_file, cuda_device, overrides)
    if adapts(archive.model):
        task_reader(archive.validation_dataset_reader, archive_file)
    return archive


def _page_path(path: str) -> Path:
    page = Path(path)
    # Elsewhere in AllenNLP, `-o` are overrides.
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(
            f"-o {path}: give the page a name that ends in .html; overrides are given by --overrides here"
        )
    return check_writable(page)
