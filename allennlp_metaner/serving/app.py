"""The HTTP API."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Union

from allennlp.common.checks import ConfigurationError
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp

from allennlp_metaner.data.json_sentences import json_line
from allennlp_metaner.serving import schema
from allennlp_metaner.serving.batcher import Batcher, QueueFullError
from allennlp_metaner.serving.bodies import gone, reading_bodies
from allennlp_metaner.serving.errors import UNEXPECTED, RefusedError, add_handlers
from allennlp_metaner.serving.metrics import Metrics
from allennlp_metaner.serving.page import page, page_headers
from allennlp_metaner.serving.taggers import Taggers
from allennlp_metaner.tagging.results import Document

logger = logging.getLogger(__name__)

PATHS = ("/", "/predict", "/health", "/metrics", "/openapi.json")
PROBLEMS: dict[Union[int, str], dict[str, Any]] = {
    status: {"model": schema.Problems, "description": description}
    for status, description in {
        408: "The body comes too slowly.",
        413: "The texts are too long.",
        422: "A field is wrong.",
        429: "Too many requests wait.",
    }.items()
}
# A character of JSON has at most so many bytes: two escapes of six bytes each, quotes and a comma.
BYTES_PER_CHARACTER = 16
# For the other fields.
OTHER_BYTES = 4096


@dataclass(frozen=True)
class Limits:
    """
    What a service bears.

    # Parameters

    max_characters : `int`, optional (default = `20000`)
        The most characters of a request. An empty text counts as one.
    queue_size : `int`, optional (default = `64`)
        The most requests that wait for the model.
    batch_size : `int`, optional (default = `32`)
        The most sentences that go through the model together.
    request_seconds : `float`, optional (default = `30`)
        For how long a client may send a request.

    # Raises

    `ConfigurationError`, if a limit is not positive.
    """

    max_characters: int = 20_000
    queue_size: int = 64
    batch_size: int = 32
    request_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigurationError(f"{name}={value} must be positive")


class Service:
    """
    Answers the requests of an app.

    # Parameters

    taggers : `Taggers`
    limits : `Limits`
    """

    def __init__(self, taggers: Taggers, limits: Limits) -> None:
        self.metrics = Metrics(PATHS)
        self.batcher = Batcher(
            taggers.by_adaptation, limits.batch_size, limits.queue_size, self.metrics.count_batch
        )
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.health = schema.Health(
            model=taggers.name,
            adapts=taggers.adapts,
            adapt_choices=sorted(taggers.by_adaptation),
            max_characters=limits.max_characters,
        )

    async def predict(self, wanted: schema.PredictRequest, request: Request) -> schema.PredictResponse:
        """
        # Raises

        `RefusedError`
        """
        adapt = self.health.adapts if wanted.adapt is None else wanted.adapt
        if adapt not in self.health.adapt_choices:
            raise RefusedError(422, "adapt", self._no_adaptation())
        length = sum(max(1, len(text)) for text in wanted.text)
        if length > self.health.max_characters:
            message = f"{length} characters are more than {self.health.max_characters}. Send fewer at a time"
            raise RefusedError(413, "text", message)
        documents = [
            document.above(wanted.threshold) for document in await self._label(wanted.text, adapt, request)
        ]
        self.metrics.count_documents(documents)
        described = [
            schema.Document.model_validate(document.to_dict(sentences=wanted.details))
            for document in documents
        ]
        return schema.PredictResponse(adapt=adapt, documents=described)

    async def _label(self, texts: Sequence[str], adapt: bool, request: Request) -> list[Document]:
        try:
            future = self.batcher.submit(texts, adapt)
        except QueueFullError:
            message = "too many requests wait. Try again later"
            raise RefusedError(429, None, message, {"Retry-After": "1"}) from None
        answer = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(gone(request))
        either: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise RefusedError(499, None, "the client has gone")
            return answer.result()
        except RefusedError:
            raise
        except Exception as error:
            logger.exception("the model failed on a request")
            raise RefusedError(500, None, UNEXPECTED) from error
        finally:
            # What still waits is not labelled for nobody.
            answer.cancel()
            leaving.cancel()

    def _no_adaptation(self) -> str:
        if self.health.adapt_choices == [False]:
            return "the archive cannot adapt: it retrieves nothing. Leave the field out"
        return "the archive cannot label without adaptation. Leave the field out"


def make_app(taggers: Taggers, limits: Limits) -> ASGIApp:
    """
    # Parameters

    taggers : `Taggers`
    limits : `Limits`

    # Returns

    `ASGIApp`
        The whole service.
    """
    service = Service(taggers, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.close)

    # The pages of documentation load scripts from other servers.
    app = FastAPI(
        title="allennlp-metaner", docs_url=None, redoc_url=None, lifespan=lifespan, responses=PROBLEMS
    )
    add_handlers(app)

    @app.post("/predict", response_model=schema.PredictResponse)
    async def predict(wanted: schema.PredictRequest, request: Request) -> Response:
        """Find the names in texts. They are answered as they came, lone surrogates too."""
        found = await service.predict(wanted, request)
        # FastAPI's own way to JSON cannot take those, which have no form in UTF-8.
        return Response(json_line(found.model_dump(exclude_none=True)), media_type="application/json")

    @app.get("/health")
    async def health() -> schema.Health:
        """Whether the service is there, and what it serves."""
        return service.health

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page(), headers=page_headers())

    max_bytes = BYTES_PER_CHARACTER * limits.max_characters + OTHER_BYTES
    return service.metrics.observing(reading_bodies(app, max_bytes, limits.request_seconds))
