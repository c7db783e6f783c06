"""`allennlp metaner-label`: names in text files, folders, standard input, JSON lines, Parquet, columns."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Optional

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu
from tqdm import tqdm

from allennlp_metaner.atomic import check_writable, write_whole
from allennlp_metaner.commands.arguments import add_archive, add_cuda_device, add_overrides
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.characters import encodable
from allennlp_metaner.data.sentence_splitting import SENTENCE_MODES
from allennlp_metaner.tagging import inputs, outputs, rendering
from allennlp_metaner.tagging.documents import Source
from allennlp_metaner.tagging.exported_tagger import RUNTIMES
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.progress_file import ProgressFile
from allennlp_metaner.tagging.results import Document
from allennlp_metaner.tagging.shard_labelling import DOCUMENTS_PER_SHARD, ShardLabelling

# More of them would hide the result. The output has them all.
ERRORS_SHOWN = 10
# What a result depends on, besides the inputs.
SETTINGS = (
    "archive_file",
    "input",
    "input_format",
    "encoding",
    "word_column",
    "sentences",
    "language",
    "threshold",
    "adapt",
    "overrides",
)


@Subcommand.register("metaner-label")
class Label(Subcommand):
    """
    Finds the names in documents and writes them in the format that the name of the output file tells. A run
    that was interrupted goes on where it was.

    Registered as a `Subcommand` with name "metaner-label".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = (
            "Find the names in text files, folders, standard input (-), JSON lines and column files. "
            "Errors are named by file and line, and do not end the run."
        )
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Find the names in texts."
        )
        add_archive(subparser, exported=True)
        subparser.add_argument("input", nargs="+", help="files and folders; - is standard input")
        _add_input_arguments(subparser)
        _add_output_arguments(subparser)
        _add_shard_arguments(subparser)
        adapt = subparser.add_mutually_exclusive_group()
        adapt.add_argument("--adapt", action="store_true", default=None, help="adapt to each sentence")
        adapt.add_argument("--no-adapt", dest="adapt", action="store_false", help="label without adaptation")
        subparser.add_argument("--threshold", type=float, default=0.0, help="leave out less sure entities")
        subparser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch")
        add_cuda_device(subparser)
        add_overrides(subparser, output=True)
        subparser.add_argument(
            "--runtime", choices=RUNTIMES, help="what runs an exported model (default: transformers)"
        )
        subparser.add_argument("--fail-fast", action="store_true", help="end at the first error")
        subparser.set_defaults(func=_run)
        return subparser


def _add_input_arguments(subparser: argparse.ArgumentParser) -> None:
    subparser.add_argument(
        "--input-format", choices=inputs.FORMATS, help="if not given, what the names of the files tell"
    )
    subparser.add_argument("--encoding", default="utf-8", help="of the input")
    subparser.add_argument("--word-column", type=int, default=0, help="where the word is in column files")
    subparser.add_argument(
        "--split", dest="sentences", choices=SENTENCE_MODES, default="split", help="how texts are cut"
    )
    subparser.add_argument(
        "--language", default="xx", help="of the texts, for its abbreviations: es, nl, ..."
    )


def _add_output_arguments(subparser: argparse.ArgumentParser) -> None:
    output = subparser.add_mutually_exclusive_group()
    output.add_argument("-o", "--output-file", help="if neither is given, the screen")
    output.add_argument("--output-shards", metavar="FOLDER", help="for many texts: a folder of JSON lines")
    subparser.add_argument(
        "--format", choices=[*outputs.FORMATS, "spacy"], help="if not given, what the output's name tells"
    )
    subparser.add_argument(
        "--details", action="store_true", help="JSON lines also have sentences, words, tags and neighbours"
    )
    subparser.add_argument("--force", action="store_true", help="replace output that is there")


def _add_shard_arguments(subparser: argparse.ArgumentParser) -> None:
    subparser.add_argument(
        "--shard-size",
        type=int,
        default=DOCUMENTS_PER_SHARD,
        help=f"documents in each file of --output-shards (default: {DOCUMENTS_PER_SHARD})",
    )
    subparser.add_argument(
        "--workers", type=int, help="write shards by so many workers of Ray (default: by this process alone)"
    )


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    if arguments.output_shards is not None:
        _to_shards(arguments)
    elif arguments.workers is not None:
        raise ConfigurationError("--workers are for --output-shards: give a folder for it, or leave them out")
    elif arguments.output_file is None:
        _to_screen(arguments)
    else:
        _to_file(arguments, Path(arguments.output_file))


def _to_screen(arguments: argparse.Namespace) -> None:
    format = arguments.format or "text"
    if format == "spacy":
        raise ConfigurationError("--format spacy is not text: give an output file, -o names.spacy")
    sources = inputs.read_sources(*_reading(arguments))
    documents = _noting_errors(_pipe(arguments, sources))
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if format == "text" and color:
        lines: Iterator[str] = (f"{rendering.marked(document, color=True)}\n" for document in documents)
    else:
        lines = outputs.FORMATS[format](documents, arguments.details)
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        sys.stdout.write(encodable(line, encoding, is_json=format == "jsonl"))
        sys.stdout.flush()


def _to_file(arguments: argparse.Namespace, output: Path) -> None:
    format = arguments.format or outputs.format_of(output)
    if output.exists() and not arguments.force:
        raise ConfigurationError(f"{output} is there already. Give another name, or --force to replace it")
    check_writable(output)
    reading = _reading(arguments)
    run = {name: getattr(arguments, name, None) for name in SETTINGS}
    progress = ProgressFile(output, {**run, "files": reading[0]})
    try:
        sizes = None
        if inputs.STANDARD_INPUT not in reading[0]:
            sizes = [len(source.text) for source in inputs.read_sources(*reading)]
        rest = islice(inputs.read_sources(*reading), progress.num_done, None)
        documents = _noting_errors(_pipe(arguments, rest))
        for document in _with_bar(documents, sizes, progress.num_done):
            progress.add(document)
        if format == "spacy":
            content = outputs.doc_bin(progress.documents())
        else:
            lines = outputs.FORMATS[format](progress.documents(), arguments.details)
            content = encodable("".join(lines), is_json=format == "jsonl").encode()
        write_whole(output, content)
    except BaseException:
        progress.close()
        raise
    progress.close(remove=True)


def _to_shards(arguments: argparse.Namespace) -> None:
    if arguments.format not in (None, "jsonl"):
        raise ConfigurationError(f"--format {arguments.format}: shards are JSON lines. Leave it out")
    check_for_gpu(arguments.cuda_device)
    labelling = ShardLabelling(
        arguments.archive_file,
        *_reading(arguments),
        documents_per_shard=arguments.shard_size,
        tagger=_tagger_settings(arguments),
        batch_size=arguments.batch_size,
        details=arguments.details,
        fail_fast=arguments.fail_fast,
    )
    hide = not sys.stderr.isatty()
    with tqdm(unit=" shards", disable=hide) as bar:
        manifest = labelling.write(
            Path(arguments.output_shards), arguments.workers, arguments.force, lambda _: bar.update()
        )
    errors = f"; {manifest['errors']} of them could not be labelled" if manifest["errors"] else ""
    print(
        f"{manifest['documents']} documents with {manifest['entities']} names in {len(manifest['shards'])} "
        f"shards in {arguments.output_shards}{errors}"
    )


def _reading(arguments: argparse.Namespace) -> tuple[list[str], Optional[str], str, int]:
    files = inputs.input_files(arguments.input)
    return files, arguments.input_format, arguments.encoding, arguments.word_column


def _pipe(arguments: argparse.Namespace, sources: Iterable[Source]) -> Iterator[Document]:
    check_for_gpu(arguments.cuda_device)
    tagger = NameTagger.load(arguments.archive_file, **_tagger_settings(arguments))
    return tagger.pipe(sources, arguments.batch_size, arguments.fail_fast)


def _tagger_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("adapt", "threshold", "language", "sentences", "cuda_device", "overrides", "runtime")
    return {name: getattr(arguments, name) for name in names}


def _noting_errors(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents; afterwards, the screen shows which of them could not be labelled."""
    errors = []
    for document in documents:
        if document.error is not None:
            errors.append(document.error)
        yield document
    for error in errors[:ERRORS_SHOWN]:
        print(error, file=sys.stderr)
    if errors:
        print(f"{len(errors)} documents could not be labelled", file=sys.stderr)


def _with_bar(documents: Iterable[Document], sizes: Optional[list[int]], num_done: int) -> Iterator[Document]:
    """The documents, with a bar that tells characters a second and the time left."""
    total = None if sizes is None else sum(sizes)
    initial = 0 if sizes is None else sum(sizes[:num_done])
    with tqdm(
        total=total, initial=initial, unit="char", unit_scale=True, disable=not sys.stderr.isatty()
    ) as bar:
        for number, document in enumerate(documents, start=num_done + 1):
            yield document
            bar.set_postfix_str(f"{number} documents", refresh=False)
            bar.update(len(document.text))
