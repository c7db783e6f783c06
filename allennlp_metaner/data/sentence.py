"""One sentence as an AllenNLP instance: the one form that every part of this package works on."""

from collections.abc import Sequence
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import Field, Instance, Token, Vocabulary
from allennlp.data.fields import MetadataField, SequenceLabelField, TextField

from allennlp_metaner.data.characters import without_surrogates
from allennlp_metaner.data.tag_schemes import entity_type

LABEL_NAMESPACE = "labels"


class TagField(SequenceLabelField):
    """
    The tags of a sentence, which know where they are from.

    # Parameters

    tags : `Sequence[str]`
        BIO, one for each token of `text`.
    text : `TextField`
    place : `str`, optional (default = `None`)
        "file:line", or the like.
    """

    def __init__(self, tags: Sequence[str], text: TextField, place: Optional[str] = None) -> None:
        super().__init__(list(tags), text, label_namespace=LABEL_NAMESPACE)
        self.place = place

    def index(self, vocab: Vocabulary) -> None:
        """
        # Raises

        `ConfigurationError`, if the vocabulary, which is that of a trained model, has no such tag.
        """
        try:
            super().index(vocab)
        except KeyError as error:
            known = vocab.get_token_to_index_vocabulary(LABEL_NAMESPACE)
            words = [str(token) for token in self.sequence_field]  # type: ignore[attr-defined]
            word, tag = next(pair for pair in zip(words, self.labels, strict=True) if pair[1] not in known)
            types = sorted(
                {type_ for name in known if name[:2] in ("B-", "I-") and (type_ := entity_type(name))}
            )
            raise ConfigurationError(
                f"{self.place or 'a sentence'}: in {' '.join(words)!r}, {word!r} has the tag {tag!r}, but "
                f"the model knows the types {', '.join(types)} alone. Rename the type, or drop it, by the "
                f'label_map={{"{entity_type(str(tag))}": "O"}} of the reader '
                "(validation_dataset_reader.base_reader.label_map, if the reader is 'pseudo_tasks')"
            ) from error


def place_of(instance: Instance) -> Optional[str]:
    """Where the labelled sentence of an instance is from, if that is known."""
    return getattr(instance.fields.get("tags"), "place", None)


def sentence_instance(
    words: Sequence[str], tags: Optional[Sequence[str]] = None, place: Optional[str] = None
) -> Instance:
    """
    # Parameters

    words : `Sequence[str]`
        Lone surrogates become U+FFFD.
    tags : `Sequence[str]`, optional (default = `None`)
        One BIO tag for each word.
    place : `str`, optional (default = `None`)
        Where the sentence is from ("file:line"), for messages.

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
        "tags": TagField(tags, text, place),
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
