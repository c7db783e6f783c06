"""`allennlp predict` with adaptation."""

import itertools
import locale
import sys
from collections.abc import Sequence
from typing import Any, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import JsonDict
from allennlp.data import Batch, DatasetReader, Instance
from allennlp.models import Model
from allennlp.nn.util import move_to_device
from allennlp.predictors import Predictor

from allennlp_metaner.data.characters import encodable
from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.data.json_sentences import (
    JsonSentence,
    check_sentence,
    json_line,
    load_json,
    parse_sentence,
)
from allennlp_metaner.data.raw_text import join
from allennlp_metaner.data.sentence import sentence_instance, words_and_tags
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.meta.test_time_adaptation import adaptable, adapts
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader


@Predictor.register("adapting")
class AdaptingPredictor(Predictor):
    """
    Labels sentences with the parameters adapted to their support sets (Algorithm 1), with the model's own
    settings ([`TestTimeAdaptation`](../meta/test_time_adaptation.md)), as the evaluator does.

    Input, a JSON object a line: `{"sentence": "raw text"}`, or `{"words": ["a", "list"]}` for text that is
    tokenised already. Raw text of any script is split by [`tokenize`](../data/raw_text.md#tokenize).
    Output: `text`, `words`, `tags`, `entities` (`text`, `label`, `start` and `end` in characters of `text`,
    and `confidence`, the lowest probability of its words' tags), and `support`, the retrieved sentences with
    `words`, `tags` and `similarity`. Other fields of the input are kept. Blank text has no entities, and
    nothing is retrieved for it. A line of `allennlp predict` that is refused has the reason as `error`, and
    no words.

    Registered as a `Predictor` with name "adapting".

    # Parameters

    model : `Model`
    dataset_reader : `DatasetReader`
        Of type "pseudo_tasks", unless `adapt` is false.
    adapt : `bool`, optional (default = `None`)
        If false, sentences are labelled by the model as it is; nothing is retrieved. `None`: what the model's
        adaptation says. At the command line: `--predictor-args '{"adapt": false}'`, or, as for the evaluator,
        `-o '{"model.adaptation.enabled": false}'`.
    with_support : `bool`, optional (default = `True`)
        Whether the output has `support`: `--predictor-args '{"with_support": false}'`.
    fail_fast : `bool`, optional (default = `False`)
        Whether a line that is refused ends `allennlp predict`.

    # Raises

    `ConfigurationError`, if the reader cannot retrieve, or masks words.
    """

    def __init__(
        self,
        model: Model,
        dataset_reader: DatasetReader,
        adapt: Optional[bool] = None,
        with_support: bool = True,
        fail_fast: bool = False,
    ) -> None:
        super().__init__(model, dataset_reader)
        adapt = adapts(model, adapt)
        refuse_masking(dataset_reader, "adaptation")
        if adapt and not isinstance(dataset_reader, PseudoTaskReader):
            raise ConfigurationError(
                f"the predictor 'adapting' got the reader {type(dataset_reader).__name__}, but needs one of "
                "type 'pseudo_tasks' (the config's validation_dataset_reader) to adapt; without adaptation, "
                "any reader will do: --predictor-args '{\"adapt\": false}'"
            )
        self._reader = dataset_reader
        self._adapt = adapt
        self._with_support = with_support
        self._fail_fast = fail_fast
        self._line_numbers = itertools.count(1)

    def load_line(self, line: str) -> JsonDict:
        """
        The object of a line of input, or, if it is refused, what makes the output tell why.

        # Raises

        `ConfigurationError`, which names the line, if it is refused and `fail_fast` is set.
        """
        place = f"line {next(self._line_numbers)} of the input (blank ones not counted)"
        try:
            fields = load_json(line, place)
            check_sentence(fields, place)
        except ConfigurationError as error:
            if self._fail_fast:
                raise
            return _Refused(error=str(error.message))
        loaded: JsonDict = fields
        return loaded

    def dump_line(self, outputs: JsonDict) -> str:
        line = json_line(outputs)
        # Where AllenNLP writes it to.
        for encoding in (locale.getpreferredencoding(False), sys.stdout.encoding or "utf-8"):
            line = encodable(line, encoding, is_json=True)
        return line

    def predict(self, sentence: str) -> JsonDict:
        """Label one raw sentence."""
        return self.predict_json({"sentence": sentence})

    def predict_json(self, inputs: JsonDict) -> JsonDict:
        return self.predict_batch_json([inputs])[0]

    def predict_batch_json(self, inputs: list[JsonDict]) -> list[JsonDict]:
        parsed = [
            JsonSentence([], "", [])
            if isinstance(line, _Refused)
            else parse_sentence(line, f"sentence {number} of the input batch")
            for number, line in enumerate(inputs, start=1)
        ]
        instances = self.instances([sentence.words for sentence in parsed if sentence.words])
        labelled = zip(self._label(instances), instances, strict=True)
        outputs = [
            self._describe(*next(labelled), sentence.text, sentence.offsets)
            if sentence.words
            else self._description(sentence.text)
            for sentence in parsed
        ]
        return [
            {**output, **line} if isinstance(line, _Refused) else {**_kept(line), **output}
            for output, line in zip(outputs, inputs, strict=True)
        ]

    def predict_instance(self, instance: Instance) -> JsonDict:
        return self.predict_batch_instance([instance])[0]

    def predict_batch_instance(self, instances: list[Instance]) -> list[JsonDict]:
        described = []
        for output, instance in zip(self._label(instances), instances, strict=True):
            text, offsets = join(words_and_tags(instance)[0])
            described.append(self._describe(output, instance, text, offsets))
        return described

    def instances(self, sentences: Sequence[list[str]]) -> list[Instance]:
        """
        What `predict_batch_instance` takes, of sentences as words. They count as
        none of the pool's, so equal ones may be their support, unless the retriever excludes equal texts.
        """
        if not self._adapt:
            return [sentence_instance(words) for words in sentences]
        assert isinstance(self._reader, PseudoTaskReader)
        return list(self._reader.tasks([(words, None) for words in sentences]))

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        return self.instances([parse_sentence(json_dict, "the input").words])[0]

    def _label(self, instances: Sequence[Instance]) -> list[dict[str, Any]]:
        if not instances:
            return []
        for instance in instances:
            self._reader.apply_token_indexers(instance)
        batch = Batch(instances)
        batch.index_instances(self._model.vocab)
        tensors: dict[str, Any] = move_to_device(batch.as_tensor_dict(), self.cuda_device)
        if self._adapt:
            tasks = [{**task, "query": _without_gold(task["query"])} for task in tensors["task"]]
            return adaptable(self._model).adapt_and_predict(tasks)
        tensors.pop("task", None)
        with torch.no_grad():
            output = self._model.make_output_human_readable(self._model(**_without_gold(tensors)))
        return [
            {"tags": [tags], "probabilities": [probabilities]}
            for tags, probabilities in zip(output["tags"], output["probabilities"], strict=True)
        ]

    def _describe(
        self, output: dict[str, Any], instance: Instance, text: str, offsets: list[tuple[int, int]]
    ) -> JsonDict:
        (tags,), (probabilities,) = output["tags"], output["probabilities"]
        words = words_and_tags(instance)[0]
        tags = _without_blank_entities(words, tags)
        entities = []
        for label, first, last in spans(tags):
            start, end = offsets[first][0], offsets[last][1]
            confidence = min(probabilities[first : last + 1])
            entities.append(
                {
                    "text": text[start:end],
                    "label": label,
                    "start": start,
                    "end": end,
                    "confidence": confidence,
                }
            )
        support = instance["metadata"].metadata["support"] if self._adapt else ()  # type: ignore[attr-defined]
        return self._description(text, words, tags, entities, support)

    def _description(
        self,
        text: str,
        words: Sequence[str] = (),
        tags: Sequence[str] = (),
        entities: Sequence[JsonDict] = (),
        support: Sequence[JsonDict] = (),
    ) -> JsonDict:
        described = {"text": text, "words": list(words), "tags": list(tags), "entities": list(entities)}
        return {**described, "support": list(support)} if self._adapt and self._with_support else described


class _Refused(dict[str, Any]):
    """In place of a line of the input that is no sentence: the reason, as `error`."""


def _kept(line: JsonDict) -> JsonDict:
    """The fields of an input that are not the sentence."""
    return {key: value for key, value in line.items() if key not in ("sentence", "words")}


def _without_blank_entities(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The tags, without those of entities of which all words are blank: callers may give such words."""
    kept = list(tags)
    for _, first, last in spans(tags):
        if not any(word.strip() for word in words[first : last + 1]):
            kept[first : last + 1] = ["O"] * (last + 1 - first)
    return kept


def _without_gold(tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key != "tags"}
