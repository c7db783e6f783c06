"""A service in a thread of this process, on a real socket, with a quick backend."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import pytest
import uvicorn

from allennlp_metaner.serving.app import Limits, make_app
from allennlp_metaner.serving.server import bound_socket, make_server
from allennlp_metaner.serving.taggers import Taggers
from allennlp_metaner.tagging.backends import Backend, Tagged
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.name_tagger import NameTagger
from tests.tagging.conftest import CapitalsBackend


class PlainBackend(CapitalsBackend):
    """Without adaptation: no neighbours, and a name of one word is none."""

    def _tagged(self, words: Sequence[str]) -> Tagged:
        found = super()._tagged(words)
        tags = ["O" if tag == "B-LOC" else tag for tag in found.tags]
        names = [tag for tag in found.tags if tag.startswith("B-")]
        sure = [
            confidence for tag, confidence in zip(names, found.confidences, strict=True) if tag != "B-LOC"
        ]
        return replace(found, tags=tags, confidences=sure, neighbors=[])


class GatedBackend(CapitalsBackend):
    """Answers only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        assert self.gate.wait(60)
        return super().tag(sentences)


def taggers(plain: Backend, adapted: Backend | None = None, adapts: bool = False) -> Taggers:
    """The taggers of these backends."""
    by_adaptation = {False: NameTagger(Engine(plain))}
    if adapted is not None:
        by_adaptation[True] = NameTagger(Engine(adapted))
    return Taggers("a model", by_adaptation, adapts)


@dataclass
class Running:
    """A service that runs, and how to ask it."""

    url: str
    server: uvicorn.Server
    thread: threading.Thread
    client: httpx.Client

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def post(self, **content: object) -> httpx.Response:
        return self.client.post("/predict", json=content)

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def running(found: Taggers, limits: Limits) -> Iterator[Running]:
    """A service, until the end of the block."""
    bound = bound_socket("127.0.0.1", 0)
    server = make_server(make_app(found, limits), limits.request_seconds)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        for _ in range(600):
            if server.started:
                break
            thread.join(0.05)
        assert server.started
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Running(url, server, thread, client)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts services, which end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def started(found: Taggers, **limits: float) -> Running:
            return stack.enter_context(running(found, Limits(**limits)))  # type: ignore[arg-type]

        yield started


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service with both answers, which adapts."""
    both = taggers(PlainBackend(), CapitalsBackend(), adapts=True)
    with running(both, Limits(max_characters=1000, request_seconds=2)) as found:
        yield found
