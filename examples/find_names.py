"""Find names in a text: python examples/find_names.py ARCHIVE "Siemens baut in München." """

import sys

from allennlp_metaner import NameTagger


def main(archive: str, text: str) -> None:
    """Print each name with its place in the text, its type and the model's confidence."""
    document = NameTagger.load(archive).predict(text)
    for entity in document.entities:
        print(f"{entity.start}-{entity.end}\t{entity.text}\t{entity.label}\t{entity.confidence:.2f}")
    for sentence in document.sentences:
        for neighbor in sentence.neighbors:
            print(f"# learned from ({neighbor.similarity:.2f}): {neighbor.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
