"""`allennlp metaner-pseudo-label`: teachers label text, for a student to learn from."""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Optional

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.data import DatasetReader

from allennlp_metaner.archives import check_archive, load_archive
from allennlp_metaner.atomic import check_writable, write_json, write_whole
from allennlp_metaner.commands.arguments import add_cuda_device, add_overrides
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.json_sentences import read_sentences
from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.file_hash import file_hash
from allennlp_metaner.tagging.documents import cut
from allennlp_metaner.tagging.inputs import input_files
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader
from allennlp_metaner.unlabelled.neighbor_weights import write_neighbor_weights, write_vectors
from allennlp_metaner.unlabelled.pseudo_labels import (
    JOB,
    MANIFEST,
    MEAN_NEIGHBOR_WEIGHTS,
    VOCABULARY,
    WORDS,
    shifted_types,
    unique,
    weights_hash,
)
from allennlp_metaner.unlabelled.teacher import Teacher, combine_shards, label_shards


@Subcommand.register("metaner-pseudo-label")
class PseudoLabel(Subcommand):
    """
    Labels text with one teacher or several, one after the other, and writes a folder for the reader
    "pseudo_labels". Interrupted, it goes on where it was when it is given the same again.

    Registered as a `Subcommand` with name "metaner-pseudo-label".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = "Label text without labels, so that a student can learn from the labels."
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Label text for a student to learn from."
        )
        add_text_arguments(subparser, split="lines")
        subparser.add_argument("--output-directory", required=True, help="the folder of pseudo labels")
        subparser.add_argument(
            "--neighbor-weights",
            action="store_true",
            help="also write what the word_weights 'knn' and 'vote+knn' need",
        )
        add_overrides(
            subparser,
            "settings of all archives, such as \"import 'training_configs/targets/es.jsonnet'\"",
        )
        subparser.set_defaults(func=_run)
        return subparser


def add_text_arguments(subparser: argparse.ArgumentParser, split: str) -> None:
    """
    The arguments of commands with teachers and text; `split` is the default of the option of this name.
    """
    subparser.add_argument(
        "archive_files", nargs="+", metavar="archive_file", help="the teachers: archives or runs"
    )
    subparser.add_argument(
        "--text",
        nargs="+",
        required=True,
        help="files, or folders of them: .txt (see --split), .jsonl as for `allennlp predict`, or what the "
        "reader of the first archive reads (see the overrides of teachers), whose tags are not looked at",
    )
    subparser.add_argument(
        "--split",
        choices=["lines", "split"],
        default=split,
        help=f"whether a line of .txt files is a sentence, or is split into sentences (default: {split})",
    )
    subparser.add_argument(
        "--language", default="xx", help="of the text, for its abbreviations where it is split: es, nl, ..."
    )
    subparser.add_argument(
        "--adapt",
        choices=["yes", "no"],
        help="whether teachers are adapted to each sentence; if not given, what each archive says",
    )
    add_cuda_device(subparser)


def chosen(adapt: Optional[str]) -> Optional[bool]:
    """The argument `--adapt`."""
    return None if adapt is None else adapt == "yes"


def read_text(
    file: str, reader: DatasetReader, split: str = "lines", language: str = "xx"
) -> Iterator[list[str]]:
    """
    The words of each sentence of a file.

    # Parameters

    file : `str`
        Raw text (`.txt`), JSON lines (`.jsonl`) or whatever `reader` reads.
    reader : `DatasetReader`
    split : `str`, optional (default = `"lines"`)
        Of raw text: "lines": a line is a sentence; "split": a line is split into sentences.
    language : `str`, optional (default = `"xx"`)
        See [`split_sentences`](../data/sentence_splitting.md#split_sentences).
    """
    if file.endswith(".jsonl"):
        yield from (sentence.words for sentence in read_sentences(file) if sentence.words)
    elif file.endswith(".txt"):
        for line in read_lines(file, "utf-8"):
            yield from (sentence.words for sentence in cut(line, language, split))
    else:
        plain = reader._base_reader if isinstance(reader, PseudoTaskReader) else reader
        yield from (words_and_tags(instance)[0] for instance in plain.read(file))


def pseudo_label(
    archive_files: Sequence[str],
    files: Sequence[str],
    folder: Path,
    adapt: Optional[bool] = None,
    overrides: str = "",
    cuda_device: int = -1,
    with_neighbor_weights: bool = False,
    split: str = "lines",
    language: str = "xx",
) -> dict[str, Any]:
    """
    Label text, and write a folder of pseudo labels, or finish one that was begun.

    # Parameters

    archive_files : `Sequence[str]`
        The teachers, which are loaded one after the other: they need not fit into memory together.
    files : `Sequence[str]`
        The text, see [`read_text`](#read_text).
    folder : `Path`
    adapt : `bool`, optional (default = `None`)
        Whether teachers are adapted to each sentence. `None`: what each archive says.
    overrides : `str`, optional (default = `""`)
        Jsonnet that overrides settings of all archives.
    cuda_device : `int`, optional (default = `-1`)
    with_neighbor_weights : `bool`, optional (default = `False`)
        Also weigh words by their neighbours, see
        [`neighbor_weights`](../unlabelled/neighbor_weights.md#neighbor_weights).
    split : `str`, optional (default = `"lines"`)
    language : `str`, optional (default = `"xx"`)
        How raw text is split, see [`read_text`](#read_text).

    # Returns

    `dict[str, Any]`
        The manifest.

    # Raises

    `ConfigurationError`, if there is no sentence, if teachers have different labels, or if the folder was
    begun with another text or other teachers.
    """
    check_writable(folder / MANIFEST)
    for archive_file in archive_files:
        check_archive(archive_file)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"teacher-{number}" for number in range(1, len(archive_files) + 1)]
    sentences: list[list[str]] = []
    job: dict[str, Any] = {"teachers": [], "text": {file: file_hash(file) for file in files}}
    job["split"] = [split, language]
    shares = None
    for part, archive_file in zip(parts, archive_files, strict=True):
        archive = load_archive(archive_file, cuda_device, overrides)
        teacher = Teacher(archive, adapt, cuda_device)
        if not sentences:
            found = (read_text(file, teacher.reader, split, language) for file in files)
            sentences = unique(chain.from_iterable(found))
            job["labels"] = teacher.labels
            shares = teacher.source_shares
        if teacher.labels != job["labels"]:
            raise ConfigurationError(
                f"{archive_file} has the labels {', '.join(teacher.labels)}, but {archive_files[0]} has "
                f"{', '.join(job['labels'])}: teachers of one student need the same"
            )
        job["teachers"].append({"adapts": teacher.adapts, "weights": weights_hash(teacher.model)})
        _begin(folder, job, sentences, teacher)
        label_shards(folder, part, teacher, sentences)
        if with_neighbor_weights and part == parts[0]:
            write_vectors(folder, teacher, sentences)
    together = combine_shards(folder, parts, sentences, job["labels"])
    manifest = {**job, "archives": list(archive_files), "num_sentences": len(sentences), **together}
    if with_neighbor_weights:
        manifest[MEAN_NEIGHBOR_WEIGHTS] = write_neighbor_weights(folder, sentences, job["labels"])
    if shares is not None:
        manifest["source_entities_per_word"] = shares
    write_json(folder / MANIFEST, manifest)
    return manifest


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    check_for_gpu(arguments.cuda_device)
    folder = Path(arguments.output_directory)
    manifest = pseudo_label(
        arguments.archive_files,
        input_files(arguments.text),
        folder,
        chosen(arguments.adapt),
        arguments.overrides,
        arguments.cuda_device,
        arguments.neighbor_weights,
        arguments.split,
        arguments.language,
    )
    warn_of_shifts(manifest)
    print(
        f"{manifest['num_sentences']} sentences of {manifest['num_words']} words in {folder}; all teachers "
        f"agree on {100 * manifest['agreement']:.1f} % of the words"
    )


def _begin(folder: Path, job: dict[str, Any], sentences: Sequence[Sequence[str]], teacher: Teacher) -> None:
    """
    Write what is to be done, or compare it with what was begun in this folder.

    # Raises

    `ConfigurationError`, if the folder is of another text or other teachers.
    """
    if not sentences:
        raise ConfigurationError(f"{', '.join(job['text'])}: no sentence found")
    path = folder / JOB
    begun = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for key in ("text", "split", "labels", "teachers"):
        old, new = begun.get(key), job[key]
        if key == "teachers" and old is not None:
            # Those that come later are not known yet, or were not when the run ended.
            old, new = old[: len(new)], new[: len(old)]
        if old not in (None, new):
            raise ConfigurationError(
                f"{folder} was begun with other {key} ({old}, now {new}): give another "
                "--output-directory, or remove it"
            )
    if len(begun.get("teachers", [])) < len(job["teachers"]):
        (folder / MANIFEST).unlink(missing_ok=True)
        teacher.model.vocab.save_to_files(str(folder / VOCABULARY))
        lines = "".join(json.dumps(words, ensure_ascii=False) + "\n" for words in sentences)
        write_whole(folder / WORDS, lines.encode())
        write_json(path, job)


def warn_of_shifts(manifest: dict[str, Any]) -> None:
    """Print a warning for each type whose share in the text is another one than in the source data."""
    source = manifest.get("source_entities_per_word")
    found = {} if source is None else shifted_types(manifest["entities_per_word"], source)
    for type_, (here, there) in found.items():
        print(
            f"WARNING: {type_} has {1000 * here:.1f} entities in 1,000 words of the text, and "
            f"{1000 * there:.1f} in the source data. Where shares differ so much, a student of soft "
            "labels can be worse than its teacher"
        )
