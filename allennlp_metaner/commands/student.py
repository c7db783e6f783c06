"""`allennlp metaner-student`: from teachers and text to a student; interrupted, it goes on where it was."""

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Optional

from allennlp.commands.subcommand import Subcommand
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.models.archival import CONFIG_NAME, extracted_archive, get_weights_path

from allennlp_metaner.archives import check_archive, load_archive, local_path
from allennlp_metaner.atomic import whole_directory, write_json
from allennlp_metaner.commands.arguments import add_overrides
from allennlp_metaner.commands.export import training_facts
from allennlp_metaner.commands.pseudo_label import (
    add_text_arguments,
    chosen,
    pseudo_label,
    warn_of_shifts,
)
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.configs import configs_directory
from allennlp_metaner.data.pretrained_files import ENCODER_DIRECTORY, archived_name
from allennlp_metaner.experiments.resuming import train_or_resume
from allennlp_metaner.exporting.conversion import check_packages, export
from allennlp_metaner.file_hash import file_hash
from allennlp_metaner.settings import DEFAULTS
from allennlp_metaner.tagging.exported_tagger import ONNX_FILE
from allennlp_metaner.tagging.inputs import STANDARD_INPUT, input_files
from allennlp_metaner.unlabelled.pseudo_labels import MANIFEST, MEAN_NEIGHBOR_WEIGHTS
from allennlp_metaner.unlabelled.word_weights import WordWeights

REQUEST, TEACHER, PSEUDO_LABELS, STUDENT, TRAINED, EXPORTED = (
    "request.json",
    "teacher",
    "pseudo_labels",
    "student",
    "student.json",
    "exported",
)
"""
What is in the folder: what was asked for; the first teacher, if it was an archive file; the results of the
stages; and a file that is there when the student is complete.
"""


@Subcommand.register("metaner-student")
class Student(Subcommand):
    """
    Labels text with teachers, trains a student on the labels, and exports it if asked to. Interrupted, it
    goes on where it was when it is given the same again; stages that are finished are left as they are.

    Registered as a `Subcommand` with name "metaner-student".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Label text with one teacher or several, train a student on the labels, and export it: one "
            "command, which goes on where it was if it is interrupted and given again."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Teach a student by text: labels, training, export."
        )
        add_text_arguments(subparser, split="split")
        subparser.add_argument(
            "-s", "--serialization-dir", type=Path, required=True, help="the folder for all results"
        )
        subparser.add_argument(
            "--config",
            default=str(configs_directory() / "unlabelled/voting.jsonnet"),
            help="the student's training (default: unlabelled/voting.jsonnet of this package's configs)",
        )
        add_overrides(subparser, "settings of --config")
        subparser.add_argument(
            "--teacher-overrides", default="", help="the same for all teachers, such as how to read columns"
        )
        subparser.add_argument("--export", action="store_true", help="export it, see metaner-export")
        subparser.add_argument("--onnx", action="store_true", help="export it, with an ONNX file")
        subparser.set_defaults(func=_run)
        return subparser


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    check_for_gpu(arguments.cuda_device)
    if STANDARD_INPUT in arguments.text:
        raise ConfigurationError("--text -: standard input cannot be read again. Give files or folders")
    # What can be wrong is found before anything is computed.
    files = input_files(arguments.text)
    for archive_file in arguments.archive_files:
        check_archive(archive_file)
    check_packages(arguments.onnx)
    folder: Path = arguments.serialization_dir
    folder.mkdir(parents=True, exist_ok=True)
    config = _rendered(arguments.config, arguments.overrides, folder, _start(folder, arguments.archive_files))
    _begin(folder, _request(arguments, files, config))
    _label(folder, arguments, files, _needs_neighbors(config, arguments.config))
    _train(folder, config)
    if arguments.export or arguments.onnx:
        _export(folder, arguments.onnx)


def _label(folder: Path, arguments: argparse.Namespace, files: Sequence[str], neighbors: bool) -> None:
    labels = folder / PSEUDO_LABELS
    manifest = _json(labels / MANIFEST)
    if manifest is not None and (MEAN_NEIGHBOR_WEIGHTS in manifest or not neighbors):
        print(f"{labels}: finished before", flush=True)
        return
    print(f"{labels}: teachers label {len(files)} files", flush=True)
    manifest = pseudo_label(
        arguments.archive_files,
        files,
        labels,
        chosen(arguments.adapt),
        arguments.teacher_overrides,
        arguments.cuda_device,
        neighbors,
        arguments.split,
        arguments.language,
    )
    warn_of_shifts(manifest)


def _train(folder: Path, config: dict[str, Any]) -> None:
    run, trained = folder / STUDENT, folder / TRAINED
    if trained.is_file():
        print(f"{run}: finished before", flush=True)
        return
    print(f"{run}: the student learns", flush=True)
    train_or_resume(config, run)
    # Last, since AllenNLP's own files may be there, half-written, if the training was interrupted.
    write_json(trained, {"archive": f"{STUDENT}/model.tar.gz"})


def _export(folder: Path, onnx: bool) -> None:
    exported, archive_file = folder / EXPORTED, str(folder / STUDENT / "model.tar.gz")
    if exported.is_dir() and ((exported / ONNX_FILE).is_file() or not onnx):
        print(f"{exported}: finished before", flush=True)
        return
    print(f"{exported}: the student is exported", flush=True)
    archive = load_archive(archive_file)
    # Nothing but what an earlier export without ONNX left.
    shutil.rmtree(exported, ignore_errors=True)
    export(archive, exported, archive_file, onnx=onnx, facts=training_facts(archive))


def _request(arguments: argparse.Namespace, files: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    """All that the student depends on."""
    return {
        "teachers": [_weights_hash(local_path(archive_file)) for archive_file in arguments.archive_files],
        "text": {file: file_hash(file) for file in files},
        "adapt": arguments.adapt,
        "teacher overrides": arguments.teacher_overrides,
        "split": arguments.split,
        "language": arguments.language,
        "config": config,
    }


def _begin(folder: Path, request: dict[str, Any]) -> None:
    """
    # Raises

    `ConfigurationError`, if something else was begun in the folder.
    """
    begun = _json(folder / REQUEST)
    if begun is None:
        write_json(folder / REQUEST, request)
        return
    changed = [key for key in request if begun.get(key) != request[key]]
    if changed:
        raise ConfigurationError(
            f"{folder} was begun with other {', '.join(changed)}, see {folder / REQUEST}: give the same "
            "again to go on, or another folder with -s, or remove this one"
        )


def _rendered(config: str, overrides: str, folder: Path, start: Path) -> dict[str, Any]:
    """The config of the student's training, with the teacher and the pseudo labels where they are."""
    if not Path(config).is_file():
        raise ConfigurationError(
            f"--config {config}: there is no such file. Leave it out, or give a config such as those in "
            f"{configs_directory() / 'unlabelled'}"
        )
    places = {"METANER_START": str(start), "METANER_PSEUDO_LABELS": str(folder / PSEUDO_LABELS)}
    encoder = _encoder(start)
    if encoder is not None and os.environ.get("METANER_ENCODER") in (None, DEFAULTS["METANER_ENCODER"]):
        places["METANER_ENCODER"] = encoder
    with _environment(places):
        rendered: dict[str, Any] = Params.from_file(config, overrides).as_dict(quiet=True)
    return rendered


def _needs_neighbors(config: Mapping[str, Any], source: str) -> bool:
    reader = config.get("dataset_reader", {})
    if reader.get("type") != "pseudo_labels":
        raise ConfigurationError(
            f"--config {source}: the dataset_reader is of type {reader.get('type')!r}, but a student's is of "
            "type 'pseudo_labels': see training_configs/unlabelled"
        )
    weights = reader.get("word_weights", WordWeights.default_implementation)
    name = weights["type"] if isinstance(weights, Mapping) else weights
    needs: bool = WordWeights.by_name(name).needs_neighbors  # type: ignore[attr-defined]
    return needs


def _start(folder: Path, archive_files: Sequence[str]) -> Path:
    """A serialization directory with the weights of the first teacher, from which students can start."""
    path, copy = local_path(archive_files[0]), folder / TEACHER
    if (path / "best.th").is_file():
        return path
    if not copy.is_dir():
        source: AbstractContextManager[Any] = nullcontext(path) if path.is_dir() else extracted_archive(path)
        with source as directory, whole_directory(copy) as complete:
            # Whoever starts from it needs neither its pool nor its text.
            shutil.copytree(directory, complete, ignore=shutil.ignore_patterns("pool"), dirs_exist_ok=True)
            Path(get_weights_path(complete)).rename(complete / "best.th")
    return copy


def _encoder(start: Path) -> Optional[str]:
    """The encoder of the teacher, as it travels with it, or its name."""
    embedders = (_json(start / CONFIG_NAME) or {})["model"]["text_field_embedder"].get("token_embedders", {})
    for embedder in embedders.values():
        if "model_name" in embedder:
            copy = start / ENCODER_DIRECTORY / archived_name(embedder["model_name"])
            return str(copy) if copy.is_dir() else str(embedder["model_name"])
    return None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _weights_hash(path: Path) -> str:
    return file_hash(get_weights_path(path) if path.is_dir() else path)


def _json(path: Path) -> Optional[dict[str, Any]]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
