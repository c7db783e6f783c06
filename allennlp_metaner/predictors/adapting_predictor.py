"""`allennlp predict` with adaptation."""

import json
from collections.abc import Sequence
from typing import Any, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import JsonDict
from allennlp.data import Batch, DatasetReader, Instance
from allennlp.models import Model
from allennlp.nn.util import move_to_device
from allennlp.predictors import Predictor

from allennlp_metaner.data.coding import spans
from allennlp_metaner.data.entity_masking_indexer import refuse_masking
from allennlp_metaner.data.json_sentences import json_line, parse_sentence
from allennlp_metaner.data.raw_text import join
from allennlp_metaner.data.sentence import sentence_instance, words_and_tags
from allennlp_metaner.meta.test_time_adaptation import adaptation_of, adapts
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
    `words`, `tags` and `similarity`. Other fields of the input are kept.

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

    # Raises

    `ConfigurationError`, if the reader cannot retrieve, or masks words.
    """

    def __init__(
        self,
        model: Model,
        dataset_reader: DatasetReader,
        adapt: Optional[bool] = None,
        with_support: bool = True,
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
        self._lines_read = 0

    def load_line(self, line: str) -> JsonDict:
        """
        The object of a line of input.

        # Raises

        `ConfigurationError`, which names the line, if it is none, or has no sentence.
        """
        self._lines_read += 1
        place = f"line {self._lines_read} of the input, blank ones not counted,"
        try:
            fields: JsonDict = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(
                f"{place} is {line.strip()[:80]!r}, which is not JSON ({error}). Give one object a line: "
                '{"sentence": "text"}. For files of text, there is `allennlp metaner-label`'
            ) from error
        parse_sentence(fields, place)
        return fields

    def dump_line(self, outputs: JsonDict) -> str:
        return json_line(outputs)

    def predict(self, sentence: str) -> JsonDict:
        """Label one raw sentence."""
        return self.predict_json({"sentence": sentence})

    def predict_json(self, inputs: JsonDict) -> JsonDict:
        return self.predict_batch_json([inputs])[0]

    def predict_batch_json(self, inputs: list[JsonDict]) -> list[JsonDict]:
        parsed = [
            parse_sentence(line, f"sentence {number} of the input batch")
            for number, line in enumerate(inputs, start=1)
        ]
        instances = self.instances([sentence.words for sentence in parsed])
        described = []
        for line, output, instance, sentence in zip(
            inputs, self._label(instances), instances, parsed, strict=True
        ):
            kept = {key: value for key, value in line.items() if key not in ("sentence", "words")}
            described.append({**kept, **self._describe(output, instance, sentence.text, sentence.offsets)})
        return described

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
        for instance in instances:
            self._reader.apply_token_indexers(instance)
        batch = Batch(instances)
        batch.index_instances(self._model.vocab)
        tensors: dict[str, Any] = move_to_device(batch.as_tensor_dict(), self.cuda_device)
        if self._adapt:
            tasks = [{**task, "query": _without_gold(task["query"])} for task in tensors["task"]]
            outputs = adaptation_of(self._model).predict(self._model, tasks)
            return [self._model.make_output_human_readable(output) for output in outputs]
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
        described = {
            "text": text,
            "words": words_and_tags(instance)[0],
            "tags": tags,
            "entities": entities,
        }
        if self._adapt and self._with_support:
            described["support"] = instance["metadata"].metadata["support"]  # type: ignore[attr-defined]
        return described


def _without_gold(tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key != "tags"}
