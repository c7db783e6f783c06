"""`NameTagger`: named entities of texts, in a few lines of Python."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Optional, Union, overload

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.archives import load_archive
from allennlp_metaner.tagging.backends import ArchiveBackend, Backend
from allennlp_metaner.tagging.documents import Source, Text
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.exported_tagger import ExportedTagger, read_config
from allennlp_metaner.tagging.results import Document


class NameTagger:
    """
    Finds named entities in texts of any language:

        tagger = NameTagger.load("runs/meta_en/model.tar.gz")
        document = tagger.predict("María Torres dirige el Banco Azul en Sevilla.")
        for entity in document.entities:
            print(entity.text, entity.label, entity.confidence)

    Several threads may call it at the same time; the model labels one batch after the other.

    # Parameters

    engine : `Engine`
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def load(
        cls,
        path: Union[str, "PathLike[str]"],
        adapt: Optional[bool] = None,
        threshold: float = 0.0,
        language: str = "xx",
        sentences: str = "split",
        cuda_device: int = -1,
        overrides: str = "",
        runtime: Optional[str] = None,
    ) -> "NameTagger":
        """
        # Parameters

        path : `str`
            An archive (`model.tar.gz`), a serialization directory, or a folder that `metaner-export` wrote.
        adapt : `bool`, optional (default = `None`)
            Whether the model is adapted to each sentence. `None`: what the archive's model says.
        threshold : `float`, optional (default = `0.0`)
            Entities with less confidence are left out.
        language : `str`, optional (default = `"xx"`)
            The language of the texts, if it is known: its abbreviations end no sentence.
        sentences : `str`, optional (default = `"split"`)
            "split": texts are cut into sentences; "lines": each line is a sentence; "whole": a text is one.
        cuda_device : `int`, optional (default = `-1`)
            The GPU to use; -1 means the CPU.
        overrides : `str`, optional (default = `""`)
            Jsonnet that overrides settings of the archive's config.
        runtime : `str`, optional (default = `None`)
            What runs an exported model: "transformers", which `None` means, or "onnxruntime", see
            [`ExportedTagger`](./exported_tagger.md#exportedtagger).

        # Raises

        `ConfigurationError`, if there is no archive at `path`, an exported tagger is to be adapted, an
        archive is to be run by `runtime`, or an argument is out of range.
        """
        backend: Backend
        if read_config(Path(path)) is None:
            if runtime is not None:
                raise ConfigurationError(
                    f"runtime={runtime!r} is for folders that `allennlp metaner-export` writes, and {path} "
                    "is none: leave it out, or export the archive"
                )
            backend = ArchiveBackend(load_archive(str(path), cuda_device, overrides), adapt)
        elif adapt or overrides:
            raise ConfigurationError(
                f"{path} is an exported tagger, which cannot be adapted and has no config to override: leave "
                "out adapt and overrides, or give the archive"
            )
        else:
            backend = ExportedTagger(path, runtime or "transformers", cuda_device)
        return cls(Engine(backend, threshold, language, sentences))

    @overload
    def predict(self, texts: str) -> Document: ...  # type: ignore[overload-overlap]  # also a sequence

    @overload
    def predict(self, texts: Sequence[Text]) -> list[Document]: ...

    def predict(self, texts: Union[str, Sequence[Text]]) -> Union[Document, list[Document]]:
        """
        # Parameters

        texts : `Union[str, Sequence[Union[str, Sequence[str]]]]`
            A text; or several documents, each a text or the words of a sentence:
            `predict([["Anna", "visited", "Paris", "."]])`.

        # Returns

        `Union[Document, list[Document]]`
            One for a text, a list for several.

        # Raises

        `ConfigurationError`, if a document cannot be labelled.
        """
        if isinstance(texts, str):
            return next(self.pipe([texts], fail_fast=True))
        if not isinstance(texts, Sequence) or isinstance(texts, bytes):
            raise ConfigurationError(
                f"predict got a {type(texts).__name__}, but needs a text or a list of texts. For other "
                "iterables there is pipe"
            )
        return list(self.pipe(texts, fail_fast=True))

    def pipe(
        self, texts: Iterable[Union[Text, Source]], batch_size: int = 32, fail_fast: bool = False
    ) -> Iterator[Document]:
        """See [`Engine.pipe`](./engine.md#pipe)."""
        return self._engine.pipe(texts, batch_size, fail_fast)
