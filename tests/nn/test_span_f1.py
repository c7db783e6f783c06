"""The span metric, against seqeval, against conlleval's rules written out, and in two processes."""

from collections import Counter
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from allennlp.training.metrics import Metric
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, classification_report

from allennlp_metaner.nn.span_f1 import SpanF1

Batch = list[tuple[list[str], list[str]]]

# Independent draws are mostly ill-formed; a prediction that is often equal gives correct entities as well.
TAGS = st.sampled_from(["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC"])
PAIRS = st.lists(TAGS.flatmap(lambda tag: st.tuples(st.just(tag) | TAGS, st.just(tag))), max_size=12)
BATCHES = st.lists(PAIRS, min_size=1, max_size=5).map(
    lambda sentences: [([p for p, _ in pairs], [g for _, g in pairs]) for pairs in sentences]
)


def scores(batch: Batch) -> dict[str, float]:
    metric = SpanF1()
    metric([predicted for predicted, _ in batch], [gold for _, gold in batch])
    return metric.get_metric()


def ends(before: str, tag: str) -> bool:
    """conlleval's endOfChunk."""
    if before == "O":
        return False
    return tag == "O" or tag[0] == "B" or before[2:] != tag[2:]


def starts(before: str, tag: str) -> bool:
    """conlleval's startOfChunk."""
    if tag == "O":
        return False
    return tag[0] == "B" or before == "O" or before[2:] != tag[2:]


def conlleval_counts(batch: Batch) -> Counter[tuple[str, str]]:
    """The main loop of conlleval: one pass over all words, an `O` line after each sentence."""
    counts: Counter[tuple[str, str]] = Counter()
    last_guess = last_gold = "O"
    in_correct = False
    for predicted, gold in batch:
        for guess, truth in zip([*predicted, "O"], [*gold, "O"], strict=True):
            guess_starts, gold_starts = starts(last_guess, guess), starts(last_gold, truth)
            guess_ends, gold_ends = ends(last_guess, guess), ends(last_gold, truth)
            if in_correct:
                if guess_ends and gold_ends and last_guess[2:] == last_gold[2:]:
                    in_correct = False
                    counts["correct", last_gold[2:]] += 1
                elif guess_ends != gold_ends or guess[2:] != truth[2:]:
                    in_correct = False
            if guess_starts and gold_starts and guess[2:] == truth[2:]:
                in_correct = True
            counts["gold", truth[2:]] += gold_starts
            counts["predicted", guess[2:]] += guess_starts
            last_guess, last_gold = guess, truth
    return counts


@settings(deadline=None)
@given(BATCHES)
def test_against_conlleval(batch: Batch) -> None:
    counts, ours = conlleval_counts(batch), scores(batch)
    for name in ("PER", "LOC", "MISC", "overall"):
        correct, predicted, gold = (
            sum(n for (k, type_), n in counts.items() if k == kind and name in (type_, "overall"))
            for kind in ("correct", "predicted", "gold")
        )
        precision, recall = correct / max(predicted, 1), correct / max(gold, 1)
        f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
        for key, value in (("precision", precision), ("recall", recall), ("f1-measure", f1)):
            assert ours.get(f"{key}-{name}", 0.0) == pytest.approx(value)


@settings(deadline=None)
@given(BATCHES)
def test_against_seqeval(batch: Batch) -> None:
    predicted, gold = [p for p, _ in batch], [g for _, g in batch]
    if not any(tag != "O" for tags in predicted + gold for tag in tags):
        return  # seqeval cannot report on nothing.
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    ours = scores(batch)
    types = set(report) - {"micro avg", "macro avg", "weighted avg"}
    assert {key.removeprefix("recall-") for key in ours if key.startswith("recall-")} == types | {"overall"}
    for name in ("micro avg", *types):
        for theirs, key in (("precision", "precision"), ("recall", "recall"), ("f1-score", "f1-measure")):
            own = ours[f"{key}-{'overall' if name == 'micro avg' else name}"]
            assert own == pytest.approx(float(report[name][theirs]))
    assert ours["accuracy"] == pytest.approx(accuracy_score(gold, predicted))


def test_by_hand() -> None:
    # PER right, LOC one word too short, MISC missed, an ORG too many.
    gold = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-MISC", "O", "O"]
    predicted = ["B-PER", "I-PER", "O", "B-LOC", "O", "O", "O", "I-ORG"]
    ours = scores([(predicted, gold)])
    assert (
        ours["precision-overall"]
        == ours["recall-overall"]
        == ours["f1-measure-overall"]
        == pytest.approx(1 / 3)
    )
    assert [ours[f"f1-measure-{t}"] for t in ("PER", "LOC", "MISC", "ORG")] == [1.0, 0.0, 0.0, 0.0]
    assert ours["accuracy"] == 5 / 8


def test_accumulates_and_resets() -> None:
    metric = SpanF1()
    assert metric.get_metric() == {
        "accuracy": 0.0,
        "precision-overall": 0.0,
        "recall-overall": 0.0,
        "f1-measure-overall": 0.0,
    }
    metric([["B-PER"]], [["B-PER"]])
    metric([["O"]], [["B-PER"]])
    before = metric.get_metric()
    assert before["recall-overall"] == 0.5
    assert metric.get_metric(reset=True) == before
    assert metric.get_metric()["recall-overall"] == 0.0


def test_other_labels_count_as_outside() -> None:
    assert scores([(["[CLS]", "B-PER", "X", "E-PER"], ["O", "B-PER", "O", "[SEP]"])]) == {
        "accuracy": 1.0,
        **{
            f"{key}-{name}": 1.0
            for key in ("precision", "recall", "f1-measure")
            for name in ("overall", "PER")
        },
    }


def test_lengths_must_agree() -> None:
    metric = SpanF1()
    with pytest.raises(ValueError, match="1 predicted but 2 gold sentences: give one for each"):
        metric([["O"]], [["O"], ["O"]])
    with pytest.raises(
        ValueError, match="sentence 1 of the batch has 1 predicted but 2 gold tags: give one tag"
    ):
        metric([["B-PER"], ["O"]], [["B-PER"], ["O", "O"]])
    assert metric.get_metric()["f1-measure-overall"] == 0.0


def test_registered() -> None:
    metric = Metric.by_name("conll_span_f1")()
    assert isinstance(metric, SpanF1) and metric.supports_distributed


WORKERS: list[Batch] = [
    [(["B-PER", "I-PER"], ["B-PER", "I-PER"]), (["O"], ["B-LOC"])],
    [(["B-ORG", "O"], ["B-PER", "O"])],
]


def work(rank: int, directory: str) -> None:
    meeting = f"file://{directory}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=len(WORKERS))
    metric = SpanF1()
    for predicted, gold in WORKERS[rank]:
        metric([predicted], [gold])
    asked = [metric.get_metric(), metric.get_metric(), metric.get_metric(reset=True), metric.get_metric()]
    dist.destroy_process_group()
    (Path(directory) / str(rank)).write_text(repr(asked), encoding="utf-8")


def test_two_processes(tmp_path: Path) -> None:
    # Forked, since a spawned process would have to import AllenNLP again.
    workers = mp.start_processes(
        work, (str(tmp_path),), len(WORKERS), join=False, daemon=True, start_method="fork"
    )
    assert any(workers.join(timeout=60) for _ in WORKERS), "the workers hang"
    together = scores([pair for batch in WORKERS for pair in batch])
    assert together["f1-measure-overall"] == pytest.approx(0.4)
    expected = repr([together, together, together, SpanF1().get_metric()])
    for rank in range(len(WORKERS)):
        assert (tmp_path / str(rank)).read_text(encoding="utf-8") == expected
