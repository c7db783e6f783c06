"""`allennlp metaner-export`: a tagger as a model of `transformers`, and as an ONNX file."""

import argparse
import json
from pathlib import Path
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import CONFIG_NAME, Archive

from allennlp_metaner.archives import load_archive, local_path
from allennlp_metaner.commands.arguments import add_archive, add_overrides
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.exporting.conversion import check_target, export
from allennlp_metaner.unlabelled.pseudo_labels import MANIFEST

METRICS_NAME = "metrics.json"


@Subcommand.register("metaner-export")
class Export(Subcommand):
    """
    Writes a folder with the model of an archive that `transformers` loads, with weights, tokenizer, label
    names and a model card, and, if asked for, an ONNX file. Test-time adaptation does not travel with it.

    Registered as a `Subcommand` with name "metaner-export".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Write a tagger as a token classification model of the library transformers: config with label "
            "names, weights, tokenizer and model card. Test-time adaptation does not travel with it."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Write a tagger as a model of transformers, or as ONNX."
        )
        add_archive(subparser)
        subparser.add_argument("folder", type=Path, help="the folder that is written; must not exist yet")
        subparser.add_argument(
            "--onnx", action="store_true", help="write model.onnx too; needs allennlp-metaner[onnx]"
        )
        add_overrides(subparser)
        subparser.set_defaults(func=_run)
        return subparser


def training_metrics(archive: Archive, path: Path) -> dict[str, Any]:
    """
    AllenNLP's metrics of the training that `archive` comes from. They are in the serialization directory,
    where the archive file is as well, unless somebody has moved it.

    # Parameters

    archive : `Archive`
    path : `Path`
        From which it was loaded.

    # Returns

    `dict[str, Any]`
        Nothing, if there are none, or only those of another training.

    # Raises

    `ConfigurationError`, if the file is there but broken.
    """
    directory = path if path.is_dir() else path.parent
    metrics, config = directory / METRICS_NAME, directory / CONFIG_NAME
    if not metrics.is_file() or not config.is_file():
        return {}
    if Params.from_file(str(config)).as_dict(quiet=True) != archive.config.as_dict(quiet=True):
        return {}
    try:
        found: dict[str, Any] = json.loads(metrics.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{metrics}: no JSON ({error}). Mend or remove the file") from error
    return found


def training_facts(archive: Archive) -> dict[str, Any]:
    """
    What a student learned from, if `archive` is one and its folder of pseudo labels is still there.
    """
    config = archive.config
    manifest = Path(config.get("train_data_path", ""), MANIFEST)
    if config["dataset_reader"].get("type") != "pseudo_labels" or not manifest.is_file():
        return {}
    found = json.loads(manifest.read_text("utf-8"))
    return {
        "teachers": len(found["teachers"]),
        "teachers were adapted to each sentence": any(teacher["adapts"] for teacher in found["teachers"]),
        "sentences without labels": found["num_sentences"],
        "their words": found["num_words"],
        "words on which all teachers agree": f"{100 * found['agreement']:.1f} %",
    }


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    # Before the archive is loaded, which takes a while.
    check_target(arguments.folder, arguments.onnx)
    archive = load_archive(arguments.archive_file, overrides=arguments.overrides)
    metrics = training_metrics(archive, local_path(arguments.archive_file))
    export(
        archive, arguments.folder, arguments.archive_file, metrics, arguments.onnx, training_facts(archive)
    )
    print(f"{arguments.folder}: written. How to use it is in {arguments.folder / 'README.md'}")
