"""
F1 of a model on a file of your own, one word a line, its tag (BIO) last, a blank line after each sentence:
python examples/evaluate.py ARCHIVE FILE
"""

import sys

from allennlp_metaner import NameTagger
from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.nn.span_f1 import SpanF1


def main(archive: str, file: str) -> None:
    """Print precision, recall and F1 by type."""
    gold = [instance["metadata"].metadata for instance in ColumnReader().read(file)]
    documents = NameTagger.load(archive).predict([sentence["words"] for sentence in gold])
    metric = SpanF1()
    metric([doc.sentences[0].tags for doc in documents], [sentence["tags"] for sentence in gold])
    for name, value in sorted(metric.get_metric(reset=True).items()):
        print(f"{name}\t{value:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
