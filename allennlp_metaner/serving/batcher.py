"""One thread that owns the model, and labels what waits together."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Optional

from allennlp_metaner.tagging.name_tagger import NameTagger
from allennlp_metaner.tagging.results import Document

# Requests are taken together until they have so many characters for each sentence of a batch: enough to fill
# one, and not so many that the first of them waits for long.
CHARACTERS_PER_SENTENCE = 100


class QueueFullError(Exception):
    """As many requests wait as may wait."""


@dataclass
class _Job:
    texts: Sequence[str]
    adapt: bool
    future: "Future[list[Document]]" = field(default_factory=Future)


class Batcher:
    """
    Labels the texts of concurrent requests in common batches. Requests are answered in their order, but for
    those that are taken together: there, those with adaptation come last.

    # Parameters

    taggers : `Mapping[bool, NameTagger]`
        The taggers with (`True`) and without (`False`) adaptation, or one of them.
    batch_size : `int`, optional (default = `32`)
        The most sentences that go through the model together.
    queue_size : `int`, optional (default = `64`)
        The most requests that wait.
    on_batch : `Callable[[int], None]`, optional (default = `None`)
        Is told, in the thread, how many requests are labelled together.
    """

    def __init__(
        self,
        taggers: Mapping[bool, NameTagger],
        batch_size: int = 32,
        queue_size: int = 64,
        on_batch: Optional[Callable[[int], None]] = None,
    ) -> None:
        self.taggers = taggers
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._queue: queue.Queue[Optional[_Job]] = queue.Queue(queue_size)
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Label what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many requests wait; those that are being labelled do not count."""
        return self._queue.qsize()

    def submit(self, texts: Sequence[str], adapt: bool) -> "Future[list[Document]]":
        """
        # Parameters

        texts : `Sequence[str]`
        adapt : `bool`
            A key of `taggers`.

        # Returns

        `Future[list[Document]]`
            A document for each text. Who no longer needs it cancels it: if it still waits, it is dropped.

        # Raises

        `QueueFullError`, if too many requests wait.
        """
        job = _Job(texts, adapt)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise QueueFullError from None
        return job.future

    def _work(self) -> None:
        while not self._ended:
            jobs = self._take()
            if jobs and self._on_batch is not None:
                self._on_batch(len(jobs))
            for adapt in (False, True):
                group = [job for job in jobs if job.adapt == adapt]
                if group:
                    self._label(group, self.taggers[adapt])

    def _take(self) -> list[_Job]:
        """The jobs to label together. Waits for one; at the end, there may be none."""
        jobs: list[_Job] = []
        room = CHARACTERS_PER_SENTENCE * self._batch_size
        while room > 0:
            try:
                job = self._queue.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                self._ended = True
                break
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
                room -= sum(map(len, job.texts))
        return jobs

    def _label(self, jobs: Sequence[_Job], tagger: NameTagger) -> None:
        """Answer every job as soon as its last document is labelled."""
        try:
            texts = [text for job in jobs for text in job.texts]
            documents = tagger.pipe(texts, self._batch_size)
            for job in jobs:
                job.future.set_result(_next(documents, len(job.texts)))
        except Exception as error:
            # Nobody may wait forever, and the thread goes on.
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(error)


def _next(documents: Iterator[Document], number: int) -> list[Document]:
    return [next(documents) for _ in range(number)]
