"""Reads the bodies of requests: not more of them than is allowed, and not for longer."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allennlp_metaner.serving.errors import RefusedError

# A body that is too large is read on and forgotten up to this size: who sends it would not see a refusal that
# comes before its end.
FORGOTTEN_BYTES = 64 * 2**20


def reading_bodies(app: ASGIApp, max_bytes: int, seconds: float) -> ASGIApp:
    """
    `app`, which then gets requests with their whole bodies.

    # Parameters

    app : `ASGIApp`
    max_bytes : `int`
        The most bytes of a body. More are refused (413).
    seconds : `float`
        For how long a client may send a body. Slower ones are refused (408).
    """

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(_body(receive, max_bytes), seconds)
        except asyncio.TimeoutError:
            message = f"the body did not arrive within {seconds:g} seconds"
            await _refuse(RefusedError(408, None, message, {"Connection": "close"}), scope, receive, send)
        except RefusedError as error:
            await _refuse(error, scope, receive, send)
        except ConnectionError:
            # The client has gone.
            return
        else:
            await app(scope, _replay(body, receive), send)

    return reading


async def _body(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part = message.get("body", b"")
        size += len(part)
        more = message.get("more_body", False) and size <= FORGOTTEN_BYTES
        if size <= max_bytes:
            body += part
    if size > max_bytes:
        raise RefusedError(
            413, None, f"the body has more than {max_bytes} bytes. Send less text at a time", _closing(size)
        )
    return bytes(body)


def _closing(size: int) -> dict[str, str]:
    return {"Connection": "close"} if size > FORGOTTEN_BYTES else {}


async def _refuse(error: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    await error.response()(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives the body first, and then what comes, which is the end of the connection."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


async def gone(request: Request) -> None:
    """Returns when the client of a request, of which the body was read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
