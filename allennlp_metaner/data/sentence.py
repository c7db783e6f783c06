"""One sentence as an AllenNLP instance: the one form that every part of this package works on."""

from collections.abc import Sequence
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import Field, Instance, Token
from allennlp.data.fields import MetadataField, SequenceLabelField, TextField

from allennlp_metaner.data.characters import without_surrogates

LABEL_NAMESPACE = "labels"


def sentence_instance(words: Sequence[str], tags: Optional[Sequence[str]] = None) -> Instance:
    """
    # Parameters

    words : `Sequence[str]`
        Lone surrogates become U+FFFD.
    tags : `Sequence[str]`, optional (default = `None`)
        One BIO tag for each word.

    # Returns

    `Instance`
        With the fields `tokens` (without token indexers; each token carries its tag in `ent_type_`), `tags`
        (namespace "labels") and `metadata` (`words`, `tags`). Where no tags are known, the field and the
        entry `tags` are missing.

    # Raises

    `ConfigurationError`, if there are no words, or not as many tags as words.
    """
    if not words:
        raise ConfigurationError("a sentence has no words: give at least one")
    words = list(map(without_surrogates, words))
    if tags is None:
        text = TextField([Token(word) for word in words])
        return Instance({"tokens": text, "metadata": MetadataField({"words": words})})
    if len(tags) != len(words):
        raise ConfigurationError(
            f"{len(words)} words but {len(tags)} tags: give one BIO tag for each word, or no tags at all"
        )
    text = TextField([Token(word, ent_type_=tag) for word, tag in zip(words, tags, strict=True)])
    fields: dict[str, Field[Any]] = {
        "tokens": text,
        "tags": SequenceLabelField(list(tags), text, label_namespace=LABEL_NAMESPACE),
        "metadata": MetadataField({"words": words, "tags": list(tags)}),
    }
    return Instance(fields)


def words_and_tags(instance: Instance) -> tuple[list[str], Optional[list[str]]]:
    """
    The words and, if known, the tags of an instance of any reader.

    # Raises

    `ConfigurationError`, if the instance has no text field `tokens`.
    """
    text, tags = instance.fields.get("tokens"), instance.fields.get("tags")
    if not isinstance(text, TextField):
        raise ConfigurationError(
            f"the base reader's instances have the fields {', '.join(instance.fields)}, but a text field "
            "'tokens' and, for labelled sentences, a sequence label field 'tags' are needed"
        )
    words = [without_surrogates(token.ensure_text()) for token in text.tokens]
    return words, [str(tag) for tag in tags.labels] if isinstance(tags, SequenceLabelField) else None
