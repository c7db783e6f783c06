"""Precision, recall and F1 of whole entities."""

from collections import Counter
from collections.abc import Sequence

import torch.distributed as dist
from allennlp.common.util import is_distributed
from allennlp.training.metrics import Metric

from allennlp_metaner.data.tag_schemes import only_bio, spans


@Metric.register("conll_span_f1")
class SpanF1(Metric):
    """
    Phrase-level precision, recall and F1 as conlleval computes them: an entity counts if its type and both of
    its boundaries are right. Labels that are not BIO count as `O`.

    Under `distributed`, the counts of all workers are added up whenever the metric is asked for; so all of
    them must ask.

    Registered as a `Metric` with name "conll_span_f1".
    """

    supports_distributed = True

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def __call__(  # type: ignore[override]
        self, predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]
    ) -> None:
        """
        # Parameters

        predicted : `Sequence[Sequence[str]]`
            For each sentence, one tag for each word.
        gold : `Sequence[Sequence[str]]`
            The same for the correct tags.

        # Raises

        `ValueError`, if the numbers of sentences or of words differ. Nothing is counted then.
        """
        if len(predicted) != len(gold):
            raise ValueError(f"{len(predicted)} predicted but {len(gold)} gold sentences: give one for each")
        for number, (guess, truth) in enumerate(zip(predicted, gold, strict=True)):
            if len(guess) != len(truth):
                raise ValueError(
                    f"sentence {number} of the batch has {len(guess)} predicted but {len(truth)} gold tags: "
                    "give one tag for each word, without padding and special tokens"
                )
        for guess, truth in zip(predicted, gold, strict=True):
            self._count(only_bio(guess), only_bio(truth))

    def _count(self, predicted: Sequence[str], gold: Sequence[str]) -> None:
        predicted_spans, gold_spans = set(spans(predicted)), set(spans(gold))
        self._counts.update(("predicted", type_) for type_, _, _ in predicted_spans)
        self._counts.update(("gold", type_) for type_, _, _ in gold_spans)
        self._counts.update(("correct", type_) for type_, _, _ in predicted_spans & gold_spans)
        self._counts["words", ""] += len(gold)
        self._counts["correct words", ""] += sum(map(str.__eq__, predicted, gold))

    def get_metric(self, reset: bool = False) -> dict[str, float]:
        """
        # Parameters

        reset : `bool`, optional (default = `False`)
            Whether to start again from zero.

        # Returns

        `dict[str, float]`
            `precision-overall`, `recall-overall` and `f1-measure-overall` (over the entities of all types),
            the same for each type that occurred, such as `f1-measure-PER`, and `accuracy` (share of words
            with the correct tag). Fractions from 0 to 1, and 0 where undefined.
        """
        counts = self._of_all_workers()
        if reset:
            self.reset()
        overall: Counter[str] = Counter()
        for (kind, _), count in counts.items():
            overall[kind] += count
        metrics = {"accuracy": _ratio(overall["correct words"], overall["words"])}
        metrics.update(_scores("overall", overall["correct"], overall["predicted"], overall["gold"]))
        for type_ in sorted({type_ for _, type_ in counts if type_}):
            metrics.update(
                _scores(type_, *(counts[kind, type_] for kind in ("correct", "predicted", "gold")))
            )
        return metrics

    def reset(self) -> None:
        """
        Forgets all counts of this worker.
        """
        self._counts.clear()

    def _of_all_workers(self) -> Counter[tuple[str, str]]:
        if not is_distributed():
            return Counter(self._counts)
        # The workers' types may differ, so objects are sent instead of a tensor of counts.
        gathered: list[Counter[tuple[str, str]]] = [Counter()] * dist.get_world_size()
        dist.all_gather_object(gathered, self._counts)
        return sum(gathered, Counter())


def _scores(name: str, correct: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        f"precision-{name}": _ratio(correct, predicted),
        f"recall-{name}": _ratio(correct, gold),
        f"f1-measure-{name}": _ratio(2 * correct, predicted + gold),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
