"""Runs the service until a signal ends it."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Optional

import uvicorn
from allennlp.common.checks import ConfigurationError
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from allennlp_metaner.serving.errors import RefusedError


def bound_socket(host: str, port: int) -> socket.socket:
    """
    # Parameters

    host : `str`
    port : `int`
        0 means any that is free.

    # Returns

    `socket.socket`
        A socket with this address, which nobody can connect to yet.

    # Raises

    `ConfigurationError`, if there is no such address, or it is taken.
    """
    try:
        if not 0 <= port < 2**16:
            raise OSError("a port is a number from 0 to 65535")
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"--host {host} --port {port}: cannot be used ({error}). Give an address of this machine and a "
            "port that is free, or --port 0 for any"
        ) from error
    return bound


class ImpatientProtocol(H11Protocol):
    """
    uvicorn's HTTP, which would wait forever for a client that connects and does not send a header.

    # Parameters

    seconds : `float`
        For how long a client may send the header of its first request. Slower ones are refused (408).
    """

    def __init__(self, *arguments: Any, seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds = seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self.loop.call_later(self._seconds, self._end_if_nothing_came)

    def _end_if_nothing_came(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            message = f"the header did not arrive within {self._seconds:g} seconds"
            body = RefusedError(408, None, message).response().body
            self.transport.write(REFUSAL % (len(body), body))
            self.transport.close()


REFUSAL = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)


def make_server(app: ASGIApp, request_seconds: float = 30, end_seconds: int = 300) -> uvicorn.Server:
    """
    # Parameters

    app : `ASGIApp`
    request_seconds : `float`, optional (default = `30`)
        For how long a client may send a header.
    end_seconds : `int`, optional (default = `300`)
        How long it may take at the end to answer what was accepted.
    """
    protocol: Any = partial(ImpatientProtocol, seconds=request_seconds)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            log_level="warning",
            timeout_graceful_shutdown=end_seconds,
            server_header=False,
        )
    )


def run(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. Then nothing more is accepted, and what was accepted is answered."""
    with _ended_by_signals(), suppress(KeyboardInterrupt):
        server.run([bound])


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """At the end, uvicorn sends the signal that ended it once more. That then does not kill the process."""

    def ignore(_: int, __: Optional[FrameType]) -> None:
        pass

    before = signal.signal(signal.SIGTERM, ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
