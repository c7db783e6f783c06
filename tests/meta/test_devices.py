"""Meta-gradients, adaptation and retrieval on another device, whose tensors refuse to mix with the CPU's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.meta_gradients import HEAD, Anil, FirstOrderMaml, MetaGradient, QueryOnly, Reptile
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.nn import randomness
from allennlp_metaner.nn.parameters import trainable_parameters
from allennlp_metaner.retrieval import sentence_encoder
from allennlp_metaner.retrieval.sentence_encoder import TransformerSentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex
from allennlp_metaner.tasks.task_field import Task
from tests.devices import DEVICE, Devices, back, moved

ALGORITHMS: dict[str, Callable[[], MetaGradient]] = {
    "auto": lambda: FirstOrderMaml(InnerLoop()),
    "three steps": lambda: FirstOrderMaml(InnerLoop(num_steps=3)),
    "per_task": lambda: FirstOrderMaml(InnerLoop(execution="per_task")),
    "one_by_one": lambda: FirstOrderMaml(InnerLoop(batching="one_by_one", num_steps=1)),
    "anil": lambda: Anil(InnerLoop(parameters=HEAD)),
    "reptile": lambda: Reptile(InnerLoop()),
    "query_only": QueryOnly,
}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers come as they do there."""
    monkeypatch.setattr(randomness, "hashes", lambda device: True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_meta_gradient(
    make_tagger: Callable[..., MaxLossTagger], make_tasks: Callable[..., list[Task]], algorithm: str
) -> None:
    """With dropout, the same there as here, although a GPU has another execution."""
    model, tasks = make_tagger().train(), make_tasks(4, (1, 2, 5))
    expected = ALGORITHMS[algorithm]()(model, trainable_parameters(model), tasks, seed=3)
    with Devices():
        model.to(DEVICE)
        found = ALGORITHMS[algorithm]()(model, trainable_parameters(model), moved(tasks), seed=3)
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-9)
        ours = torch.cat([back(gradient).flatten() for gradient in found.gradient])
    theirs = torch.cat([gradient.flatten() for gradient in expected.gradient])
    assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frozen_layers": None},
        {"embedder": {"max_length": 9, "overlap": 3}},
        {"constrain_decoding": True},
    ],
    ids=str,
)
def test_adaptation(
    make_tagger: Callable[..., MaxLossTagger],
    make_tasks: Callable[..., list[Task]],
    options: dict[str, Any],
    num_steps: int,
) -> None:
    model, tasks = make_tagger(**options), make_tasks(4, (1, 2, 5))
    expected = TestTimeAdaptation(InnerLoop(num_steps=num_steps)).predict(model, tasks)
    loop = InnerLoop(num_steps=num_steps)
    with Devices():
        model.to(DEVICE)
        found = TestTimeAdaptation(loop).predict(model, moved(tasks))
        for ours, theirs in zip(found, expected, strict=True):
            width = min(ours["logits"].size(1), theirs["logits"].size(1))
            logits = back(ours["logits"])[:, :width]
            torch.testing.assert_close(logits, theirs["logits"][:, :width], rtol=1e-9, atol=1e-12)
            assert ours["tags"] == theirs["tags"]
    # The execution of a GPU.
    assert all(state.batched for state in loop._states)


def test_retrieval(tiny_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [["Maria", "visited", "Paris"], ["rain", "fell"], ["the", "German", "bank", "won"]]
    encoder = TransformerSentenceEncoder(tiny_encoder)
    expected = encoder.encode(sentences)
    monkeypatch.setattr(sentence_encoder, "encoding_device", lambda cuda_device: DEVICE)
    # Which tensors of another class do not know.
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    with Devices():
        found = encoder.encode(sentences)
        positions, _ = ExactIndex().search(found, found, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [row[0] for row in positions] == [0, 1, 2]
