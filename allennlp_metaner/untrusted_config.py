"""Configs of archives that need not be trusted: building what they describe must call nothing foreign."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Optional, Union

from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.common.params import parse_overrides

ALLOWED_TYPES = "METANER_ALLOWED_TYPES"
"""The environment variable with the types, apart by commas, that archives may name by their Python path."""

# What is allowed besides registered types, and the archive; `None` where no archive is being built.
_UNTRUSTED: ContextVar[Optional[tuple[frozenset[str], str]]] = ContextVar("untrusted", default=None)


@contextmanager
def untrusted(
    config_file: Path,
    source: str,
    overrides: Union[str, dict[str, Any]] = "",
    allowed_types: Optional[Sequence[str]] = None,
) -> Iterator[None]:
    """
    A context in which objects are built from the config of an archive. Only registered types are; AllenNLP
    would import and call whatever a config names by its Python path.

    # Parameters

    config_file : `Path`
        That of an archive: plain JSON.
    source : `str`
        Where it is from, for the message.
    overrides : `Union[str, dict[str, Any]]`, optional (default = `""`)
        The caller's, who may name any type.
    allowed_types : `Sequence[str]`, optional (default = `None`)
        See [`load_archive`](archives.md#load_archive).

    # Raises

    `ConfigurationError`, if building what the config describes could call other than registered types.
    """
    if allowed_types is None:
        allowed_types = [name.strip() for name in os.environ.get(ALLOWED_TYPES, "").split(",")]
    _check(config_file, source, allowed_types)
    _check_encoders(config_file.parent, source)
    callers = parse_overrides(overrides) if isinstance(overrides, str) else overrides
    named_by_caller = {value for _, value in _entries(callers) if isinstance(value, str)}
    token = _UNTRUSTED.set((frozenset({*allowed_types, *named_by_caller}), source))
    try:
        yield
    finally:
        _UNTRUSTED.reset(token)


def _check(config_file: Path, source: str, allowed_types: Sequence[str]) -> None:
    """Refuse what can be seen before anything is built, also in parts that may be built later."""
    try:
        config = json.loads(config_file.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
        entries = list(_entries(config))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: its config.json cannot be read as JSON ({error})") from error
    registered = {name for registry in Registrable._registry.values() for name in registry}
    for key, value in entries:
        name = key.rsplit(".", 1)[-1]
        if name == "trust_remote_code" and value:
            raise ConfigurationError(f"{source}: the config sets {key}, which would run code of the archive")
        # AllenNLP imports what has a dot, and calls it; "from_archive" loads another archive without a check.
        foreign = isinstance(value, str) and ("." in value and value not in registered)
        if name == "type" and (foreign or value == "from_archive") and value not in allowed_types:
            raise _could_be_code(source, f"{key} = {value!r}")


def _check_encoders(folder: Path, source: str) -> None:
    """Refuse pretrained files that bring code of their own, for which `transformers` would ask the user."""
    for name in ("config.json", "tokenizer_config.json"):
        for file in folder.glob(f"*/**/{name}"):
            try:
                brings_code = "auto_map" in json.loads(file.read_text("utf-8"))
            except (OSError, ValueError, RecursionError, TypeError):
                # Whoever needs the file tells what is wrong with it.
                continue
            if brings_code:
                place = file.relative_to(folder)
                raise ConfigurationError(f"{source}: auto_map in {place} would run code of the archive")


def _entries(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All entries of nested JSON objects, with the path of their keys."""
    if isinstance(config, list):
        config = {str(number): value for number, value in enumerate(config)}
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{path}{key}", value
            yield from _entries(value, f"{path}{key}.")


def _could_be_code(source: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source}: the config has {what}, which could be any code, so it is not loaded. If you trust it, "
        f"name it in the environment variable {ALLOWED_TYPES} (or in allowed_types)"
    )


_resolve_class_name = Registrable.resolve_class_name.__func__  # type: ignore[attr-defined]


def _resolve_registered(cls: type[Registrable], name: str) -> Any:
    """
    AllenNLP's `resolve_class_name`, through which all names of types go: also a mere string, where a
    registrable object is expected, is one.
    """
    untrusted_now = _UNTRUSTED.get()
    if untrusted_now is not None and name not in Registrable._registry[cls]:
        allowed, source = untrusted_now
        if "." in name and name not in allowed:
            raise _could_be_code(source, f"the {cls.__name__} {name!r}")
    return _resolve_class_name(cls, name)


Registrable.resolve_class_name = classmethod(_resolve_registered)  # type: ignore[method-assign,assignment]
