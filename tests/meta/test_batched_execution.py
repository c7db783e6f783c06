"""The batched execution: how many operations it takes, and that tasks do not reach each other."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Lazy
from allennlp.training.optimizers import AdamOptimizer, SgdOptimizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import Anil, FirstOrderMaml, MetaGradient, Reptile
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.bert_adam import BertAdam
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task

RAGGED = (1, 2, 5)
TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[..., list[Task]]
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


def number_of(work: Callable[[list[Task]], Any], tasks: list[Task]) -> int:
    work(tasks)
    with Operations() as operations:
        work(tasks)
    return sum(operations.names.values())


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
    "one step": lambda loop: FirstOrderMaml(loop(num_steps=1)),
    "two steps": lambda loop: FirstOrderMaml(loop()),
    "three steps": lambda loop: FirstOrderMaml(loop(num_steps=3)),
    "bert_adam": lambda loop: FirstOrderMaml(loop(BertAdam)),
    "sgd": lambda loop: FirstOrderMaml(loop(SgdOptimizer)),
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
        one, some, many = (
            number_of(lambda tasks: maml(tagger, parameters, tasks, seed=0), make_tasks(number, 2))
            for number in (1, 8, 32)
        )
        print(one, some, many)
        assert some <= MOST * one
        assert many <= MOST * one

    @pytest.mark.parametrize("num_steps", [1, 2])
    def test_of_the_adaptation(
        self,
        tagger: MaxLossTagger,
        make_tasks: TaskMaker,
        loop: Callable[..., InnerLoop],
        num_steps: int,
    ) -> None:
        adaptation = TestTimeAdaptation(loop(num_steps=num_steps))
        one, some, many = (
            number_of(lambda tasks: adaptation.predict(tagger, tasks), make_tasks(number, 2))
            for number in (1, 8, 32)
        )
        print(one, some, many)
        assert some <= MOST * one
        assert many <= MOST * one
