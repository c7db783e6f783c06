"""
Many sentences by workers of Ray Data, undisturbed and killed twice, and by one process without Ray:

    python benchmarks/label_many.py --archive runs/student/es/13370 --text esp.train --input-format columns \
        --sentences 20000 --folder trial

The sentences of the text are repeated until there are enough. Each step is the command `metaner-label` in a
process of its own: with workers; the same, where one worker is killed after a quarter of the shards and the
command after half of them, and given again; and without workers, until a tenth of the shards are there. The
outputs must be equal, byte for byte. Rates are those between the first and the last shard of a step, so
start-up does not count. Threads: one a worker, and one without workers.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice, repeat
from pathlib import Path

from allennlp_metaner.data.json_sentences import json_line
from allennlp_metaner.tagging.inputs import input_files, read_sources

# Where AllenNLP finds the file that names this plugin.
ROOT = Path(__file__).resolve().parents[1]
WORKER = b"ShardWriter"


def write_text(
    files: Sequence[str], input_format: str | None, encoding: str, number: int, path: Path
) -> None:
    """Writes JSON lines with so many sentences: those of the files that have words, again and again."""

    def sentences() -> Iterator[list[str]]:
        for source in read_sources(input_files(files), input_format, encoding):
            for words in source.sentences or []:
                yield words.words

    many = chain.from_iterable(sentences() for _ in repeat(None))
    with path.open("w", encoding="utf-8") as file:
        for index, words in enumerate(islice(many, number)):
            file.write(json_line({"id": index, "words": words}))


def shards(folder: Path) -> list[Path]:
    """The shards that are there, in the order in which they were written."""
    return sorted(folder.glob("[0-9]*.jsonl"), key=lambda file: file.stat().st_mtime)


def rate(folder: Path) -> float:
    """Sentences a second between the first and the last shard."""
    files = shards(folder)
    sentences = sum(file.read_bytes().count(b"\n") for file in files[1:])
    return sentences / (files[-1].stat().st_mtime - files[0].stat().st_mtime)


def workers_of(process: int) -> list[int]:
    """The workers that a command has started, by Linux's table of processes."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()

    def is_below(found: int) -> bool:
        while found > 1 and found != process:
            found = parents.get(found, 1)
        return found == process

    return [found for found, name in names.items() if WORKER in name and is_below(found)]


class Trial:
    """One text, one archive, and the folders of labelled shards."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "text.jsonl"
        self.num_shards = -(-arguments.sentences // arguments.shard_size)
        archive = str(Path(arguments.archive).resolve())
        self._command = [sys.executable, "-m", "allennlp", "metaner-label", archive, str(self.text)]
        self._command += ["--shard-size", str(arguments.shard_size), *arguments.options]

    def start(self, output: str, workers: int | None) -> "subprocess.Popen[bytes]":
        """The command, in the background."""
        command = [*self._command, "--output-shards", str(self.folder / output)]
        command += [] if workers is None else ["--workers", str(workers)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ALLENNLP_LOG_LEVEL": ""}
        return subprocess.Popen(command, env=environment, cwd=ROOT)

    def wait(self, process: "subprocess.Popen[bytes]", output: str, number: int) -> None:
        """Until so many shards are there; an error, if the command ends without them."""
        while len(shards(self.folder / output)) < number:
            if process.poll() is not None and len(shards(self.folder / output)) < number:
                raise RuntimeError(f"the command ended with {process.returncode}, without {number} shards")
            time.sleep(0.2)

    def finish(self, process: "subprocess.Popen[bytes]") -> None:
        """Until the command ends, without an error."""
        if process.wait() != 0:
            raise RuntimeError(f"the command ended with {process.returncode}")

    def undisturbed(self, output: str, workers: int) -> None:
        """All shards."""
        self.finish(self.start(output, workers))

    def killed(self, output: str, workers: int) -> None:
        """All shards, with a killed worker and a killed command on the way."""
        process = self.start(output, workers)
        self.wait(process, output, max(1, self.num_shards // 4))
        worker = workers_of(process.pid)[0]
        os.kill(worker, signal.SIGKILL)
        print(f"killed worker {worker} at {len(shards(self.folder / output))} shards", flush=True)
        self.wait(process, output, max(2, self.num_shards // 2))
        process.kill()
        process.wait()
        print(f"killed the command at {len(shards(self.folder / output))} shards", flush=True)
        self.finish(self.start(output, workers))

    def alone(self, output: str) -> None:
        """The first shards, without workers."""
        process = self.start(output, None)
        self.wait(process, output, max(2, self.num_shards // 10))
        process.terminate()
        process.wait()

    def content(self, output: str) -> dict[str, bytes]:
        """Every file of an output but the lock."""
        return {path.name: path.read_bytes() for path in (self.folder / output).glob("[!.]*")}


def main() -> None:
    """Do all steps, and print what each gave."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--archive", required=True, help="an archive, a run, or what metaner-export wrote")
    parser.add_argument("--text", nargs="+", required=True, help="files with words: columns, or JSON lines")
    parser.add_argument("--input-format", help="if not given, what the names of the files tell")
    parser.add_argument("--encoding", default="utf-8", help="of the text")
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of text and outputs; if not given, a temporary one")
    parser.add_argument("options", nargs="*", help="others of metaner-label, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(arguments, folder)
        write_text(
            arguments.text, arguments.input_format, arguments.encoding, arguments.sentences, trial.text
        )
        workers = arguments.workers
        steps: dict[str, Callable[[], None]] = {
            "workers": lambda: trial.undisturbed("workers", workers),
            "killed": lambda: trial.killed("killed", workers),
            "alone": lambda: trial.alone("alone"),
        }
        results: dict[str, dict[str, float]] = {}
        for name, step in steps.items():
            start, load = time.perf_counter(), os.getloadavg()[0]
            step()
            seconds = time.perf_counter() - start
            results[name] = {"sentences/s": rate(folder / name), "seconds": seconds, "load before": load}
            print(name, json.dumps(results[name]), flush=True)
        expected, found, alone = (trial.content(name) for name in ("workers", "killed", "alone"))
        ratio = results["workers"]["sentences/s"] / results["alone"]["sentences/s"]
        print(f"{workers} workers: {ratio:.2f} times the rate of one process without Ray")
        print(f"killed twice: {'equal' if found == expected else 'DIFFERENT'}, {len(expected)} files")
        same = all(expected[name] == content for name, content in alone.items())
        print(f"without Ray: {'equal' if same else 'DIFFERENT'}, {len(alone)} files")
        manifest = json.loads(expected["manifest.json"])
        print(f"{manifest['documents']} sentences, {manifest['entities']} names, {manifest['errors']} errors")


if __name__ == "__main__":
    main()
