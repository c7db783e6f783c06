"""The batched execution: how many operations it takes, and that tasks do not reach each other."""

import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.common import Lazy
from allennlp.training.optimizers import AdamOptimizer, SgdOptimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import BertConfig, BertModel

from allennlp_metaner.meta import stacked_weights
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import Anil, FirstOrderMaml, MetaGradient, Reptile
from allennlp_metaner.meta.stacked_weights import copies_of, predicted_memory
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.bert_adam import BertAdam
from allennlp_metaner.nn.collate import num_subwords
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task

RAGGED = (1, 2, 5)
TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[..., list[Task]]
WORD_EMBEDDINGS = "token_embedder_tokens._embedder.transformer_model.embeddings.word_embeddings.weight"
MOST = 1.5
"""Operations of any number of tasks, for each operation of one task."""


class Operations(TorchDispatchMode):
    """Counts what PyTorch dispatches, which on a GPU is about what Python has to start."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def numbers_of(work: Callable[[list[Task]], Any], make_tasks: TaskMaker) -> list[int]:
    """For 1, 8 and 32 tasks."""
    work(make_tasks(1, 2))
    found = []
    for number in (1, 8, 32):
        tasks = make_tasks(number, 2)
        with Operations() as operations:
            work(tasks)
        found.append(sum(operations.names.values()))
    return found


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random numbers come as they do there."""
    monkeypatch.setattr(randomness, "hashes", lambda device: True)
    yield


@pytest.fixture
def loop() -> Callable[..., InnerLoop]:
    def make(optimizer: Any = AdamOptimizer, lr: float = 3e-5, **options: Any) -> InnerLoop:
        return InnerLoop(Lazy(optimizer, lr=lr), execution="batched", **options)

    return make


ALGORITHMS: dict[str, Callable[[Callable[..., InnerLoop]], MetaGradient]] = {
    "two steps": lambda loop: FirstOrderMaml(loop()),
    "bert_adam": lambda loop: FirstOrderMaml(loop(BertAdam)),
    "anil": lambda loop: Anil(loop(parameters=["classifier"])),
    "reptile": lambda loop: Reptile(loop()),
}


@pytest.mark.usefixtures("as_on_a_gpu")
class TestOperations:
    @pytest.fixture(scope="class")
    def tagger(self, make_tagger: TaggerMaker, tiny_encoder: str, tmp_path_factory: Any) -> MaxLossTagger:
        """As deep as a real encoder, where what comes but once counts little."""
        folder = Path(shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("deep") / "encoder"))
        config = BertConfig.from_pretrained(str(folder), num_hidden_layers=12)
        BertModel(config).save_pretrained(str(folder))
        return make_tagger(str(folder))

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_of_the_meta_gradient(
        self,
        tagger: MaxLossTagger,
        make_tasks: TaskMaker,
        loop: Callable[..., InnerLoop],
        algorithm: str,
    ) -> None:
        """With dropout."""
        tagger.train()
        parameters, maml = trainable_parameters(tagger), ALGORITHMS[algorithm](loop)
        numbers = numbers_of(lambda tasks: maml(tagger, parameters, tasks, seed=0), make_tasks)
        assert max(numbers) <= MOST * numbers[0]

    @pytest.mark.parametrize("num_steps", [1, 2])
    def test_of_the_adaptation(
        self,
        tagger: MaxLossTagger,
        make_tasks: TaskMaker,
        loop: Callable[..., InnerLoop],
        num_steps: int,
    ) -> None:
        adaptation = TestTimeAdaptation(loop(num_steps=num_steps))
        numbers = numbers_of(lambda tasks: adaptation.predict(tagger, tasks), make_tasks)
        assert max(numbers) <= MOST * numbers[0]


class Allocations(TorchDispatchMode):
    """Adds up the memory of all tensors that are made, as long as they are there."""

    def __init__(self) -> None:
        super().__init__()
        self.present = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self._note(each.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.present += size
        self.most = max(self.most, self.present)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.present -= size


@pytest.fixture(scope="module")
def wide(make_tagger: TaggerMaker, tiny_encoder: str, tmp_path_factory: Any) -> MaxLossTagger:
    """With the proportions of a real encoder, where it is weights that take memory, not activations."""
    folder = Path(shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("wide") / "encoder"))
    config = BertConfig.from_pretrained(
        str(folder), hidden_size=96, intermediate_size=384, num_attention_heads=4
    )
    BertModel(config).save_pretrained(str(folder))
    return make_tagger(str(folder), frozen_layers=1).train()


@pytest.mark.parametrize(
    ("optimizer", "num_steps", "step_bytes"),
    [
        (AdamOptimizer, 1, 2**28),
        (AdamOptimizer, 2, 2**28),
        (AdamOptimizer, 2, 2**20),
        (AdamOptimizer, 3, 2**20),
        (BertAdam, 2, 2**20),
        (SgdOptimizer, 2, 2**28),
    ],
)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_predicted_memory(
    wide: MaxLossTagger,
    make_tasks: TaskMaker,
    loop: Callable[..., InnerLoop],
    monkeypatch: pytest.MonkeyPatch,
    optimizer: Any,
    num_steps: int,
    step_bytes: int,
) -> None:
    """Within 20 %, with several numbers of tasks and lengths of support sets."""
    monkeypatch.setattr(stacked_weights, "STEP_BYTES", step_bytes)
    parameters = trainable_parameters(wide)
    for number, num_support in ((2, 5), (6, 2)):
        tasks, inner_loop = make_tasks(number, num_support), loop(optimizer, num_steps=num_steps)
        maml = FirstOrderMaml(inner_loop)
        maml(wide, parameters, tasks[:1], seed=0)
        with Allocations() as allocations:
            maml(wide, parameters, tasks, seed=0)
        predicted = predicted_memory(
            wide,
            parameters,
            copies_of(inner_loop._states[0].optimizer, num_steps),
            num_steps,
            [num_subwords(task["support"]) for task in tasks],
            [num_subwords(task["query"]) for task in tasks],
        )
        assert 0.8 * allocations.most <= predicted <= 1.2 * allocations.most


def test_a_task_that_diverges_stays_alone(
    make_tagger: TaggerMaker,
    make_tasks: TaskMaker,
    adapt: Callable[..., list[dict[str, torch.Tensor]]],
    loop: Callable[..., InnerLoop],
) -> None:
    """Although all are in the same tensors, and of different lengths."""
    model, supports = make_tagger().eval(), [task["support"] for task in make_tasks(4, 2)]
    expected = adapt(loop(), model, supports)
    pieces = [set(support["tokens"]["tokens"]["token_ids"].flatten().tolist()) for support in supports]
    own = min(pieces[0].difference(*pieces[1:]))
    with torch.no_grad():
        model.text_field_embedder.get_parameter(WORD_EMBEDDINGS)[own] = float("nan")
    first, *others = adapt(loop(), model, supports)
    assert all(value.isnan().any() for name, value in first.items() if "classifier" in name)
    for ours, theirs in zip(others, expected[1:], strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-12, atol=1e-12)
