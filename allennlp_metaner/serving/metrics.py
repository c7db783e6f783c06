"""What `/metrics` tells Prometheus."""

from collections.abc import Sequence
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allennlp_metaner.tagging.results import Document

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUESTS = (1, 2, 4, 8, 16, 32, 64)
# The label of addresses that there are none of: otherwise clients could make up any number of labels.
OTHER = "other"


class Metrics:
    """
    # Parameters

    paths : `Sequence[str]`
        The addresses of the service.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "metaner_requests", "Answered requests.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "metaner_request_seconds",
            "Seconds from a request's header to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._open = Gauge(
            "metaner_requests_open", "Requests that are not answered.", registry=self._registry
        )
        self.waiting = Gauge(
            "metaner_queue_requests", "Requests that wait for the model.", registry=self._registry
        )
        self._batch = Histogram(
            "metaner_batch_requests",
            "Requests that are labelled together.",
            buckets=REQUESTS,
            registry=self._registry,
        )
        self._characters = Counter("metaner_characters", "Labelled characters.", registry=self._registry)
        self._entities = Counter("metaner_entities", "Entities found.", ["label"], registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def count_batch(self, requests: int) -> None:
        """So many requests are labelled together."""
        self._batch.observe(requests)

    def count_documents(self, documents: Sequence[Document]) -> None:
        """These are an answer."""
        for document in documents:
            self._characters.inc(len(document.text))
            for entity in document.entities:
                self._entities.labels(entity.label).inc()

    def observing(self, app: ASGIApp) -> ASGIApp:
        """The app, counted."""

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            # Of a request whose client has gone there is no answer.
            status = "none"

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(message["status"])
                await send(message)

            path = scope["path"] if scope["path"] in self._paths else OTHER
            start = perf_counter()
            with self._open.track_inprogress():
                try:
                    await app(scope, receive, noting)
                finally:
                    self._seconds.labels(path).observe(perf_counter() - start)
                    self._requests.labels(path, status).inc()

        return observed
