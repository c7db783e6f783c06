"""One archive, with and without adaptation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.archives import load_archive
from allennlp_metaner.meta.test_time_adaptation import adaptable, adapts
from allennlp_metaner.tagging.backends import ArchiveBackend
from allennlp_metaner.tagging.engine import Engine
from allennlp_metaner.tagging.exported_tagger import read_config
from allennlp_metaner.tagging.name_tagger import NameTagger


@dataclass(frozen=True)
class Taggers:
    """
    # Parameters

    name : `str`
        What is served.
    by_adaptation : `Mapping[bool, NameTagger]`
        The taggers with (`True`) and without (`False`) adaptation, or one of them.
    adapts : `bool`
        Which one answers if a request does not say.
    """

    name: str
    by_adaptation: Mapping[bool, NameTagger]
    adapts: bool


def load_taggers(
    archive_file: str,
    cuda_device: int = -1,
    overrides: str = "",
    language: str = "xx",
    runtime: Optional[str] = None,
) -> Taggers:
    """
    The taggers of an archive, with one model. With adaptation only if the archive can.

    # Parameters

    archive_file : `str`
        An archive, a serialization directory, or a folder that `metaner-export` wrote.
    cuda_device : `int`, optional (default = `-1`)
    overrides : `str`, optional (default = `""`)
    language : `str`, optional (default = `"xx"`)
    runtime : `str`, optional (default = `None`)
        What runs an exported model, see [`NameTagger.load`](../tagging/name_tagger.md#load).

    # Raises

    `ConfigurationError`, if it cannot do what its settings say, or there is none.
    """
    name = _name(Path(archive_file))
    if runtime is not None or read_config(Path(archive_file)) is not None:
        exported = NameTagger.load(
            archive_file, language=language, cuda_device=cuda_device, overrides=overrides, runtime=runtime
        )
        return Taggers(name, {False: exported}, adapts=False)
    archive = load_archive(archive_file, cuda_device, overrides)
    default = adapts(archive.model)
    by_adaptation = {False: NameTagger(Engine(ArchiveBackend(archive, False), language=language))}
    try:
        adaptable(archive.model)
        by_adaptation[True] = NameTagger(Engine(ArchiveBackend(archive, True), language=language))
    except ConfigurationError:
        if default:
            raise
    return Taggers(name, by_adaptation, default)


def _name(path: Path) -> str:
    """What an archive is called, without where it is: that is nobody's business."""
    path = path.resolve()
    return path.parent.name if path.name == "model.tar.gz" else path.name
