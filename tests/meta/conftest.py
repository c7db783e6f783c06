"""
Taggers on tiny encoders in double precision, tasks for them, and a reference that shares no code with the
package but the model's forward pass: plain loops over a dictionary of tensors, with the optimisers and the
loss written out.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, Union

import pytest
import torch
from allennlp.common import Lazy
from allennlp.data import Batch, Instance, TensorDict, Vocabulary
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.training.optimizers import AdamOptimizer, SgdOptimizer
from transformers import (
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.meta.fast_weights import AdaptedTasks
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.nn.bert_adam import BertAdam
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.tasks.task_field import Task, TaskField

Weights = dict[str, torch.Tensor]
TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[..., list[Task]]
InstanceMaker = Callable[[str], list[Instance]]
LAMBDA = 2.0

TAGGED_SENTENCES = [
    "Maria/B-PER Novak/I-PER visited/O Paris/B-LOC and/O Berlin/B-LOC on/O Monday/O ./O",
    "Peter/B-PER Smith/I-PER met/O Anna/B-PER in/O Madrid/B-LOC ./O",
    "Acme/B-ORG Bank/I-ORG won/O ./O",
    "the/O German/B-MISC bank/O Globex/B-ORG beat/O the/O French/B-MISC Open/I-MISC by/O 2/O -/O 1/O",
    "London/B-LOC City/B-ORG Council/I-ORG said/O rain/O fell/O ./O",
    "shares/O rose/O 5/O percent/O ./O",
    "Torres/B-PER joined/O Acme/B-ORG in/O London/B-LOC ./O",
    "Anna/B-PER",
]


@pytest.fixture(scope="session")
def tagged_sentences() -> list[tuple[list[str], list[str]]]:
    """Eight labelled sentences of 1 to 13 words: their words and their BIO tags."""
    pairs = [[token.rsplit("/", 1) for token in sentence.split()] for sentence in TAGGED_SENTENCES]
    return [([word for word, _ in sentence], [tag for _, tag in sentence]) for sentence in pairs]


@pytest.fixture(scope="session")
def make_instances(tagged_sentences: list[tuple[list[str], list[str]]]) -> InstanceMaker:
    """Makes the sentences, once for every encoder."""
    made: dict[str, list[Instance]] = {}

    def make(encoder: str) -> list[Instance]:
        if encoder not in made:
            made[encoder] = [sentence_instance(words, tags) for words, tags in tagged_sentences]
            indexers = {"tokens": WordTransformerIndexer(encoder)}
            for instance in made[encoder]:
                instance["tokens"].token_indexers = indexers  # type: ignore[attr-defined]
        return made[encoder]

    return make


@pytest.fixture(scope="session")
def vocab(make_instances: InstanceMaker, tiny_encoder: str) -> Vocabulary:
    return Vocabulary.from_instances(make_instances(tiny_encoder))


@pytest.fixture(scope="session")
def make_tagger(tiny_encoder: str, vocab: Vocabulary) -> TaggerMaker:
    """Makes the same tagger every time, in double precision, with dropout in training mode."""

    def make(
        encoder: str = tiny_encoder, embedder: Optional[dict[str, Any]] = None, **options: Any
    ) -> MaxLossTagger:
        word_embedder = WordTransformerEmbedder(encoder, **(embedder or {}))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return MaxLossTagger(vocab, BasicTextFieldEmbedder({"tokens": word_embedder}), **options).double()

    return make


@pytest.fixture(scope="session")
def make_tasks(tiny_encoder: str, make_instances: InstanceMaker, vocab: Vocabulary) -> TaskMaker:
    """Makes so many tasks with so many support sentences each; several numbers take turns."""

    def make(
        num_tasks: int, num_support: Union[int, Sequence[int]], encoder: str = tiny_encoder
    ) -> list[Task]:
        instances, tasks = make_instances(encoder), []
        sizes = [num_support] if isinstance(num_support, int) else num_support
        for number in range(num_tasks):
            around = instances[number:] + instances[:number]
            size = sizes[number % len(sizes)]
            batch = Batch([Instance({"task": TaskField(around[0], around[1 : 1 + size])})])
            batch.index_instances(vocab)
            tasks += batch.as_tensor_dict()["task"]
        return tasks

    return make


@pytest.fixture(scope="session")
def other_encoders(tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The directories of a random XLM-R, RoBERTa and DistilBERT, each as tiny as the BERT."""
    root = tmp_path_factory.mktemp("other_encoders")
    pieces = (Path(tiny_encoder) / "vocab.txt").read_text("utf-8").split()[5:]
    special = {
        "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "distilbert": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
    }
    for name, (cls, pad, sep, unk, mask) in special.items():
        (root / name).mkdir()
        vocabulary = [cls, pad, sep, unk, mask, *pieces]
        (root / name / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        tokenizer = BertTokenizerFast(
            str(root / name / "vocab.txt"),
            do_lower_case=True,
            cls_token=cls,
            pad_token=pad,
            sep_token=sep,
            unk_token=unk,
            mask_token=mask,
        )
        tokenizer.save_pretrained(str(root / name))
    size = 5 + len(pieces)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        roberta: dict[str, Any] = {
            "vocab_size": size,
            "hidden_size": 16,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 162,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "initializer_range": 0.3,
        }
        XLMRobertaModel(XLMRobertaConfig(**roberta)).save_pretrained(str(root / "xlm-roberta"))
        distilbert = DistilBertConfig(
            vocab_size=size,
            dim=16,
            n_layers=5,
            n_heads=2,
            hidden_dim=32,
            max_position_embeddings=160,
            pad_token_id=1,
            initializer_range=0.3,
        )
        DistilBertModel(distilbert).save_pretrained(str(root / "distilbert"))
        RobertaModel(RobertaConfig(**roberta)).save_pretrained(str(root / "roberta"))
    return {name: str(root / name) for name in special}


class Sgd:
    def __init__(self, lr: float) -> None:
        self.lr = lr

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return weight - self.lr * gradient


class Adam:
    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.state: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        first, second, count = self.state.get(name, (0.0 * gradient, 0.0 * gradient, 0))
        first, second, count = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, count + 1
        self.state[name] = (first, second, count)
        unbiased_first, unbiased_second = first / (1 - 0.9**count), second / (1 - 0.999**count)
        return weight - self.lr * unbiased_first / (unbiased_second.sqrt() + 1e-8)


class PlainBertAdam:
    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.state: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        norm = gradient.norm()
        if norm + 1e-6 > 1:
            gradient = gradient / (norm + 1e-6)
        first, second = self.state.get(name, (0.0 * gradient, 0.0 * gradient))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        self.state[name] = (first, second)
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.01
        return weight - self.lr * (first / (second.sqrt() + 1e-6) + decay * weight)


class OfPyTorch:
    """PyTorch's own optimiser, one for every parameter, on a copy."""

    def __init__(self, optimizer: type[torch.optim.Optimizer], **options: Any) -> None:
        self.make = partial(optimizer, **options)
        self.state: dict[str, tuple[torch.nn.Parameter, torch.optim.Optimizer]] = {}

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if name not in self.state:
            copy = torch.nn.Parameter(weight.clone())
            self.state[name] = copy, self.make([copy])
        copy, optimizer = self.state[name]
        copy.grad = gradient.clone()
        optimizer.step()
        return copy.detach().clone()


# A plain gradient step at 3e-5 moves nothing, so a missing one would go unnoticed.
LEARNING_RATES = {"adam": 3e-5, "bert_adam": 3e-5, "sgd": 0.05}
OPTIMIZERS: dict[str, Callable[[float], Any]] = {"adam": Adam, "bert_adam": PlainBertAdam, "sgd": Sgd}
LAZY: dict[str, Any] = {"adam": AdamOptimizer, "bert_adam": BertAdam, "sgd": SgdOptimizer}


def loss(model: MaxLossTagger, weights: Weights, batch: TensorDict, weight: float) -> torch.Tensor:
    """Eq. 13, sentence by sentence."""
    inputs = {"tokens": batch["tokens"]}
    logits = torch.func.functional_call(model, weights, kwargs=inputs)["logits"]
    total = torch.zeros((), dtype=logits.dtype)
    for rows, tags, mask in zip(logits, batch["tags"], batch["tokens"]["tokens"]["mask"], strict=True):
        losses = torch.stack([row.logsumexp(0) - row[tag] for row, tag in zip(rows[mask], tags[mask])])  # noqa: B905
        total = total + losses.sum() / len(losses) + weight * losses.max()
    return total


def gradient(model: MaxLossTagger, weights: Weights, batch: TensorDict, weight: float = LAMBDA) -> Weights:
    weights = {name: value.clone().requires_grad_() for name, value in weights.items()}
    loss(model, weights, batch, weight).backward()
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in weights.items()
    }


def adapted(
    model: MaxLossTagger, support: TensorDict, updates: Any, num_steps: int, weight: float = LAMBDA
) -> Weights:
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(num_steps):
        found = gradient(model, weights, support, weight)
        weights = {name: updates.step(name, value, found[name]) for name, value in weights.items()}
    return weights


def meta_gradient(
    model: MaxLossTagger, tasks: list[Task], make_updates: Callable[[], Any], num_steps: int
) -> Weights:
    gradients = []
    for task in tasks:
        weights = adapted(model, task["support"], make_updates(), num_steps)
        gradients.append(gradient(model, weights, task["query"]))
    return {name: torch.stack([g[name] for g in gradients]).sum(0) for name in gradients[0]}


def relative_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Of whole vectors: the key biases' gradients are zero but for rounding, and cannot be compared alone."""
    a, b = (torch.cat([tensor.detach().flatten() for tensor in tensors]) for tensors in (ours, theirs))
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """The plain loops, and the optimisers in two forms: `lazy` ones for an inner loop, and `updates`."""
    return SimpleNamespace(
        loss=loss,
        gradient=gradient,
        adapted=adapted,
        meta_gradient=meta_gradient,
        relative_difference=relative_difference,
        lazy=lambda name: Lazy(LAZY[name], lr=LEARNING_RATES[name]),
        updates=lambda name, scale=1.0: OPTIMIZERS[name](LEARNING_RATES[name] * scale),
        of_pytorch=OfPyTorch,
    )


@pytest.fixture
def execution() -> str:
    """Of inner loops. Tests that are parametrised by it run in both ways."""
    return "per_task"


@pytest.fixture(scope="session")
def adapt() -> Callable[..., list[Weights]]:
    """Runs an inner loop, and returns a copy of the parameters adapted to each support set."""

    def run(
        loop: InnerLoop,
        model: MaxLossTagger,
        supports: Sequence[TensorDict],
        learning_rate_scale: float = 1.0,
        max_loss_weight: Optional[float] = None,
    ) -> list[Weights]:
        parameters = trainable_parameters(model)

        def copies(adapted: AdaptedTasks) -> list[Weights]:
            return [
                {name: adapted.weights.of_task(task, n).clone() for n, (name, _) in enumerate(parameters)}
                for task in range(len(adapted.tasks))
            ]

        if max_loss_weight is None:
            results = loop.adapt_and_differentiate(
                copies, model, parameters, supports, supports, 0, learning_rate_scale
            )
        else:
            results = loop.adapt_and_predict(copies, model, parameters, supports, supports, max_loss_weight)
        found: dict[int, Weights] = {}
        for tasks, values in results:
            assert not found.keys() & set(tasks)
            found.update(zip(tasks, values, strict=True))
        return [found[task] for task in range(len(supports))]

    return run


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Products as small as these take longer in several threads, and much longer where other programs run."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)
