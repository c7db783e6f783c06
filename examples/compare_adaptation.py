"""What adaptation changes: python examples/compare_adaptation.py ARCHIVE SENTENCE..."""

import sys

from allennlp_metaner import Document, NameTagger


def names(document: Document) -> set[tuple[str, str]]:
    """The names of a document and their types."""
    return {(entity.text, entity.label) for entity in document.entities}


def main(archive: str, *sentences: str) -> None:
    """Print the names that only the adapted, and only the plain model finds."""
    adapted = NameTagger.load(archive, adapt=True).predict(sentences)
    plain = NameTagger.load(archive, adapt=False).predict(sentences)
    for sentence, with_, without in zip(sentences, adapted, plain, strict=True):
        print(sentence)
        for text, label in sorted(names(with_) - names(without)):
            print(f"  + {text} ({label})")
        for text, label in sorted(names(without) - names(with_)):
            print(f"  - {text} ({label})")


if __name__ == "__main__":
    main(*sys.argv[1:])
