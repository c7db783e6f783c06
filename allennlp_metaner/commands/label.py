"""`allennlp metaner-label`: names in text files, folders, standard input, JSON lines and column files."""

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
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.data.characters import encodable
from allennlp_metaner.data.sentences import SENTENCE_MODES
from allennlp_metaner.tagging import inputs, outputs, rendering
from allennlp_metaner.tagging.documents import Source
from allennlp_metaner.tagging.exported_tagger import RUNTIMES
from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.progress_file import ProgressFile
from allennlp_metaner.tagging.results import Document

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
        subparser.add_argument(
            "archive_file", help="an archive, a serialization directory, or what metaner-export wrote"
        )
        subparser.add_argument("input", nargs="+", help="files and folders; - is standard input")
        _add_input_arguments(subparser)
        _add_output_arguments(subparser)
        adapt = subparser.add_mutually_exclusive_group()
        adapt.add_argument("--adapt", action="store_true", default=None, help="adapt to each sentence")
        adapt.add_argument("--no-adapt", dest="adapt", action="store_false", help="label without adaptation")
        subparser.add_argument("--threshold", type=float, default=0.0, help="leave out less sure entities")
        subparser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch")
        subparser.add_argument("--cuda-device", type=int, default=-1, help="id of the GPU to use, if any")
        subparser.add_argument("--overrides", default="", help="a json(net) structure for the config")
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
    subparser.add_argument("-o", "--output-file", help="if not given, the screen")
    subparser.add_argument(
        "--format", choices=[*outputs.FORMATS, "spacy"], help="if not given, what the output's name tells"
    )
    subparser.add_argument(
        "--details", action="store_true", help="JSON lines also have sentences, words, tags and neighbours"
    )
    subparser.add_argument("--force", action="store_true", help="replace an output file that is there")


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    if arguments.output_file is None:
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


def _reading(arguments: argparse.Namespace) -> tuple[list[str], Optional[str], str, int]:
    files = inputs.input_files(arguments.input)
    return files, arguments.input_format, arguments.encoding, arguments.word_column


def _pipe(arguments: argparse.Namespace, sources: Iterable[Source]) -> Iterator[Document]:
    check_for_gpu(arguments.cuda_device)
    tagger = NameTagger.load(
        arguments.archive_file,
        adapt=arguments.adapt,
        threshold=arguments.threshold,
        language=arguments.language,
        sentences=arguments.sentences,
        cuda_device=arguments.cuda_device,
        overrides=arguments.overrides,
        runtime=arguments.runtime,
    )
    return tagger.pipe(sources, arguments.batch_size, arguments.fail_fast)


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
