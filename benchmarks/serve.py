"""
The service under load: `python benchmarks/serve.py ARCHIVE` starts `allennlp metaner-serve`, and 32 clients
ask it for two minutes, one request after the other each.

First, every text is asked for alone. Under load, each answer must have the same entities, and none may be
lost. At the end, SIGTERM comes while requests are open: all of them must be answered. Prints the figures as
JSON; the exit status is 1 if anything was lost or wrong.
"""

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["spanish", "dutch", "german", "french", "chinese"]
ANSWERED, REFUSED, LOST, WRONG = "answered", "refused (429)", "lost", "wrong"


@dataclass
class Outcome:
    """What came of the requests of all clients."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, result: str, seconds: float) -> None:
        with self.lock:
            self.counts[result] += 1
            if result == ANSWERED:
                self.seconds.append(seconds)


class Client:
    """One connection, opened again when it broke."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._connection: Optional[http.client.HTTPConnection] = None

    def ask(self, method: str, path: str, content: Any = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=300)
        try:
            body = None if content is None else json.dumps(content).encode()
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise

    def entities(self, text: str, adapt: Optional[bool]) -> tuple[int, Any]:
        """Status, and text, label and place of each entity."""
        status, body = self.ask("POST", "/predict", {"text": text, "adapt": adapt})
        if status != 200:
            return status, None
        (document,) = json.loads(body)["documents"]
        return status, [[entity[key] for key in ("label", "start", "end")] for entity in document["entities"]]


def start_service(archive: str, options: list[str]) -> tuple[subprocess.Popen[str], str, int]:
    """The process of a service, its host and its port."""
    command = [sys.executable, "-m", "allennlp", "metaner-serve", archive, "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if match := re.search(r"http://([\d.]+):(\d+) until", line):
            # Whatever it says from now on is shown.
            threading.Thread(target=lambda: [sys.stderr.write(line) for line in process.stderr or ()]).start()
            return process, match[1], int(match[2])
    raise SystemExit("".join(said))


def load(
    address: tuple[str, int],
    expected: dict[str, Any],
    adapt: Optional[bool],
    clients: int,
    stop: threading.Event,
    accepting: threading.Event,
    outcome: Outcome,
) -> list[threading.Thread]:
    """Starts the clients, which ask until `stop` is set. Without `accepting`, no connection is no loss."""
    texts = list(expected)

    def work(number: int) -> None:
        client, turn = Client(*address), number
        while not stop.is_set():
            text = texts[turn % len(texts)]
            turn += clients + 1
            start = time.perf_counter()
            try:
                status, entities = client.entities(text, adapt)
            except (OSError, http.client.HTTPException):
                if not accepting.is_set():
                    return
                outcome.add(LOST, 0)
                continue
            seconds = time.perf_counter() - start
            right = status == 200 and entities == expected[text]
            outcome.add(ANSWERED if right else REFUSED if status == 429 else WRONG, seconds)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    return threads


def open_requests(client: Client) -> int:
    """How many requests, besides this one, the service has not answered."""
    lines = client.ask("GET", "/metrics")[1].decode().splitlines()
    (number,) = [float(line.split()[1]) for line in lines if line.startswith("metaner_requests_open ")]
    return int(number) - 1


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Of the answers, in seconds."""
    ordered = sorted(seconds) or [float("nan")]
    at = {f"p{part}": ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 90, 95, 99)}
    return {name: round(value, 3) for name, value in {**at, "max": ordered[-1]}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("archive")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--texts", nargs="+", help="files with a text a line; if not given, the demo's")
    parser.add_argument("--num-texts", type=int, default=200)
    parser.add_argument("--no-adapt", dest="adapt", action="store_false", default=None)
    parser.add_argument("options", nargs="*", help="of metaner-serve, after --")
    arguments = parser.parse_args()
    files = arguments.texts or [ROOT / f"demo/data/{language}.txt" for language in TEXTS]
    lines = [[*filter(None, Path(name).read_text("utf-8").splitlines())] for name in files]
    texts = list(dict.fromkeys(line for group in zip(*lines, strict=False) for line in group))
    texts = texts[: arguments.num_texts]

    process, *address = start_service(arguments.archive, arguments.options)
    host, port = str(address[0]), int(address[1])
    one = Client(host, port)
    time.sleep(1)
    start = time.perf_counter()
    expected = {text: one.entities(text, arguments.adapt)[1] for text in texts}
    alone = (time.perf_counter() - start) / len(texts)

    outcome, stop, accepting = Outcome(), threading.Event(), threading.Event()
    accepting.set()
    start = time.perf_counter()
    threads = load((host, port), expected, arguments.adapt, arguments.clients, stop, accepting, outcome)
    time.sleep(arguments.seconds)
    before = dict(outcome.counts)
    took = time.perf_counter() - start
    figures = percentiles(outcome.seconds)

    # From here on, connections may be refused, but no open request may be left without its answer.
    accepting.clear()
    ends = time.perf_counter()
    waiting = open_requests(Client(host, port))
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    ended = time.perf_counter() - ends
    stop.set()
    for thread in threads:
        thread.join()
    answered_at_the_end = outcome.counts[ANSWERED] - before.get(ANSWERED, 0)
    print(
        json.dumps(
            {
                "clients": arguments.clients,
                "seconds": round(took, 1),
                "texts": len(texts),
                "entities": sum(len(names) for names in expected.values()),
                "alone_seconds": round(alone, 3),
                "requests": before,
                "requests_per_second": round(before.get(ANSWERED, 0) / took, 2),
                "latency_seconds": figures,
                "after_sigterm": {
                    "open": waiting,
                    "answered": answered_at_the_end,
                    "seconds": round(ended, 2),
                    "exit": code,
                },
            },
            indent=2,
        )
    )
    sys.exit(code != 0 or answered_at_the_end < waiting or any(outcome.counts[bad] for bad in (LOST, WRONG)))


if __name__ == "__main__":
    main()
