"""F1 on the screen."""

from allennlp_metaner.evaluation.score_table import score_table
from allennlp_metaner.nn.span_f1 import SpanF1


def test_table() -> None:
    metric = SpanF1()
    metric([["B-PER", "O", "B-LOC", "B-product"]], [["B-PER", "B-PER", "O", "B-product"]])
    assert score_table({**metric.get_metric(), "loss": 3.0}) == (
        "         precision  recall      F1\n"
        "LOC           0.00    0.00    0.00\n"
        "PER         100.00   50.00   66.67\n"
        "product     100.00  100.00  100.00\n"
        "overall      66.67   66.67   66.67\n"
    )


def test_other_metrics() -> None:
    assert score_table({"accuracy": 1.0}) == ""
