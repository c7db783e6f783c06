"""Names inside a spaCy pipeline: python examples/spacy_pipeline.py ARCHIVE TEXT..."""

import sys

import spacy


def main(archive: str, *texts: str) -> None:
    """Print the entities of each text; "xx" is spaCy's pipeline for any language, and others do as well."""
    nlp = spacy.blank("xx")
    nlp.add_pipe("metaner", config={"archive": archive})
    for doc in nlp.pipe(texts):
        print([(entity.text, entity.label_) for entity in doc.ents])


if __name__ == "__main__":
    main(*sys.argv[1:])
