"""Runs the service until a signal ends it."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Optional

import uvicorn
from allennlp.common.checks import ConfigurationError
from starlette.types import ASGIApp


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
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"--host {host} --port {port}: cannot be used ({error}). Give an address of this machine and a "
            "port that is free, or --port 0 for any"
        ) from error
    return bound


def run(app: ASGIApp, bound: socket.socket, end_seconds: int) -> None:
    """
    Serve until SIGTERM or SIGINT. Then nothing more is accepted, and what was accepted is answered.

    # Parameters

    app : `ASGIApp`
    bound : `socket.socket`
    end_seconds : `int`
        How long that may take at the most.
    """
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=end_seconds, server_header=False, ws="none"
    )
    with _ended_by_signals(), suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([bound])


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
