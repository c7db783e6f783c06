"""`allennlp metaner-serve`: names by HTTP, and a page to try it."""

import argparse
import sys
from typing import Any

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError, check_for_gpu

from allennlp_metaner.commands.arguments import add_archive, add_cuda_device, add_overrides
from allennlp_metaner.commands.quiet import quiet
from allennlp_metaner.tagging.exported_tagger import RUNTIMES


@Subcommand.register("metaner-serve")
class Serve(Subcommand):
    """
    Serves an archive: `POST /predict`, `/health`, `/metrics`, `/openapi.json`, and a page at `/`.

    Registered as a `Subcommand` with name "metaner-serve".
    """

    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        description = "Serve an archive by HTTP: POST /predict, /health, /metrics, and a page at /."
        subparser: argparse.ArgumentParser = parser.add_parser(
            self.name, description=description, help="Serve names by HTTP, with a page."
        )
        add_archive(subparser, exported=True)
        subparser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines, too")
        subparser.add_argument("--port", type=int, default=8000, help="0: any that is free")
        subparser.add_argument("--max-characters", type=int, default=20_000, help="of a request")
        subparser.add_argument("--queue-size", type=int, default=64, help="requests that may wait")
        subparser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch")
        subparser.add_argument(
            "--request-seconds", type=float, default=30, help="for how long a client may send a request"
        )
        subparser.add_argument(
            "--end-seconds", type=int, default=300, help="how long answering may take after SIGTERM"
        )
        subparser.add_argument("--language", default="xx", help="of the texts, for its abbreviations")
        add_cuda_device(subparser)
        subparser.add_argument(
            "--runtime", choices=RUNTIMES, help="what runs an exported model (default: transformers)"
        )
        add_overrides(subparser)
        subparser.set_defaults(func=_run)
        return subparser


@quiet()
def _run(arguments: argparse.Namespace) -> None:
    try:
        from allennlp_metaner.serving.app import Limits, make_app
        from allennlp_metaner.serving.server import bound_socket, make_server, run
        from allennlp_metaner.serving.taggers import load_taggers
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"metaner-serve needs {error.name}. Install the extra: pip install 'allennlp-metaner[serve]'"
        ) from error
    limits = Limits(
        arguments.max_characters, arguments.queue_size, arguments.batch_size, arguments.request_seconds
    )
    check_for_gpu(arguments.cuda_device)
    with bound_socket(arguments.host, arguments.port) as bound:
        taggers = load_taggers(
            arguments.archive_file,
            arguments.cuda_device,
            arguments.overrides,
            arguments.language,
            arguments.runtime,
        )
        host, port = bound.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"Serving {arguments.archive_file} at http://{host}:{port} until Ctrl-C", file=sys.stderr)
        app = make_app(taggers, limits)
        run(make_server(app, limits.request_seconds, arguments.end_seconds), bound)
