"""One archive, with and without adaptation."""

from collections.abc import Mapping
from dataclasses import dataclass

from allennlp.common.checks import ConfigurationError

from allennlp_metaner.commands.loading import load_checked
from allennlp_metaner.meta.test_time_adaptation import adaptation_of, adapts
from allennlp_metaner.tagging.backends import ArchiveBackend
from allennlp_metaner.tagging.engine import Engine
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
    archive_file: str, cuda_device: int = -1, overrides: str = "", language: str = "xx"
) -> Taggers:
    """
    The taggers of an archive, with one model. With adaptation only if the archive can.

    # Parameters

    archive_file : `str`
    cuda_device : `int`, optional (default = `-1`)
    overrides : `str`, optional (default = `""`)
    language : `str`, optional (default = `"xx"`)

    # Raises

    `ConfigurationError`, if it cannot do what its settings say.
    """
    archive = load_checked(archive_file, cuda_device, overrides)
    default = adapts(archive.model)
    by_adaptation = {False: NameTagger(Engine(ArchiveBackend(archive, False), language=language))}
    try:
        adaptation_of(archive.model)
        by_adaptation[True] = NameTagger(Engine(ArchiveBackend(archive, True), language=language))
    except ConfigurationError:
        if default:
            raise
    return Taggers(archive_file, by_adaptation, default)
