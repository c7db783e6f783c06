"""Every answer that is no success, as JSON that names the field."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from allennlp_metaner.serving.schema import Problem, Problems

# The log tells what happened; the client might not be who should know.
UNEXPECTED = "the service failed on this request; its log says why"


class RefusedError(Exception):
    """
    A request that is not answered.

    # Parameters

    status : `int`
    field : `str`, optional
        What is wrong; `None`: the whole request.
    message : `str`
    headers : `Mapping[str, str]`, optional (default = `None`)
    """

    def __init__(
        self, status: int, field: Optional[str], message: str, headers: Optional[Mapping[str, str]] = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(field=field, message=message)
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer."""
        return _response(self.status, [self.problem], self.headers)


def add_handlers(app: FastAPI) -> None:
    """Make `app` answer all errors in this form."""
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _response(
    status: int, problems: Sequence[Problem], headers: Optional[Mapping[str, str]] = None
) -> JSONResponse:
    return JSONResponse(Problems(errors=list(problems)).model_dump(), status, dict(headers or {}))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return error.response()


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _response(422, [_problem(found) for found in error.errors()])


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 400:
        message = "the body cannot be read. Send JSON in UTF-8"
    return _response(error.status_code, [Problem(field=None, message=message)], error.headers)


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    return _response(500, [Problem(field=None, message=UNEXPECTED)])


def _problem(found: Mapping[str, Any]) -> Problem:
    place = [part for part in found["loc"] if part not in ("body", "query")]
    if found["type"] == "json_invalid":
        return Problem(field=None, message=f"the body is not JSON: {found['ctx']['error']} at {place[0]}")
    message = found["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not place:
        message = 'the body should be a JSON object, such as {"text": "Ana vive en Sevilla."}, with the '
        message += "header Content-Type: application/json"
    if found["type"] == "extra_forbidden":
        message = "there is no such field. Valid are text, adapt, threshold and details"
    return Problem(field=_name(place) or None, message=message)


def _name(place: Sequence[Union[str, int]]) -> str:
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            # A made-up field's name may be of any length, and of characters that have no UTF-8 form.
            name += f".{part[:80]}" if name else part[:80]
    return name.encode("utf-8", "replace").decode("utf-8")
