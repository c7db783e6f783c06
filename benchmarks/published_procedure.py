"""
The procedure of the authors' published code, as the yardstick of all speed figures.

Re-implemented from its description, with PyTorch as it comes: every sentence is padded to 128 subwords, every
task goes through the encoder alone, the optimiser works on one parameter tensor after the other, and the
parameters are copied through state dictionaries.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

Sentence = tuple[list[str], list[int]]
"""The words, and a label index for each."""

PublishedTask = tuple[Sentence, Sequence[Sentence]]
"""Query and support set."""

LENGTH = 128
NO_LABEL = -100


class Tagger(torch.nn.Module):
    """Encoder, dropout, linear layer. Embeddings, pooler and the bottom layers are frozen."""

    def __init__(self, encoder: str, num_labels: int, frozen_layers: int) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.encoder = AutoModel.from_pretrained(encoder, attn_implementation="eager")
        self.dropout = torch.nn.Dropout(0.1)
        self.classifier = torch.nn.Linear(self.encoder.config.hidden_size, num_labels)
        frozen = [self.encoder.embeddings, self.encoder.pooler, *self.encoder.encoder.layer[:frozen_layers]]
        for module in frozen:
            if module is not None:
                module.requires_grad_(False)

    def batch(self, sentences: Sequence[Sentence]) -> dict[str, torch.Tensor]:
        """All sentences, padded to 128 subwords; a word's first subword has its label."""
        encoded = self.tokenizer(
            [words for words, _ in sentences],
            is_split_into_words=True,
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        labels = torch.full(encoded["input_ids"].shape, NO_LABEL)
        for row, (_, tags) in enumerate(sentences):
            previous = None
            for position, word in enumerate(encoded.word_ids(row)):
                if word is not None and word != previous:
                    labels[row, position] = tags[word]
                previous = word
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels,
        }

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        vectors = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return self.classifier(self.dropout(vectors.last_hidden_state))

    def loss(self, batch: dict[str, torch.Tensor], max_loss_weight: float) -> torch.Tensor:
        labels = batch["labels"]
        losses = functional.cross_entropy(
            self.logits(batch).flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none"
        ).view_as(labels)
        counted = labels != NO_LABEL
        means = losses.sum(dim=1) / counted.sum(dim=1)
        return (means + max_loss_weight * losses.max(dim=1).values).sum()


class PlainBertAdam:
    """One parameter tensor after the other, in plain arithmetic."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float) -> None:
        self.parameters = parameters
        self.lr = lr
        self.moments: dict[torch.nn.Parameter, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                continue
            torch.nn.utils.clip_grad_norm_(parameter, 1.0)
            if parameter not in self.moments:
                self.moments[parameter] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            mean, square = self.moments[parameter]
            mean.mul_(0.9).add_(parameter.grad, alpha=0.1)
            square.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            update = mean / (square.sqrt() + 1e-6)
            if parameter.dim() > 1:
                update += 0.01 * parameter
            parameter.add_(-self.lr * update)


def trainable(model: Tagger) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def inner_steps(
    model: Tagger, support: dict[str, torch.Tensor], lr: float, num_steps: int, max_loss_weight: float
) -> None:
    optimizer = PlainBertAdam(trainable(model), lr)
    for _ in range(num_steps):
        model.zero_grad()
        model.loss(support, max_loss_weight).backward()
        optimizer.step()


def meta_gradient(
    model: Tagger, tasks: Sequence[PublishedTask], lr: float = 3e-5, num_steps: int = 2
) -> list[torch.Tensor]:
    """The gradient of an update: the tasks one by one, dropout on, lambda = 2."""
    model.train()
    start = _copied(model)
    total: list[Any] = []
    for query, support in tasks:
        inner_steps(model, model.batch(support), lr, num_steps, max_loss_weight=2.0)
        model.zero_grad()
        model.loss(model.batch([query]), 2.0).backward()
        gradients = [deepcopy(parameter.grad) for parameter in trainable(model)]
        total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        model.load_state_dict(start, strict=False)
    return total


def adapt_and_label(model: Tagger, tasks: Sequence[PublishedTask], lr: float = 1e-5) -> list[torch.Tensor]:
    """The logits of each query after one step on its support set with dropout on, lambda = 0."""
    start = _copied(model)
    found = []
    for query, support in tasks:
        model.train()
        inner_steps(model, model.batch(support), lr, 1, max_loss_weight=0.0)
        model.eval()
        with torch.no_grad():
            found.append(model.logits(model.batch([query])))
        model.load_state_dict(start, strict=False)
    return found


def _copied(model: Tagger) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name: deepcopy(state[name]) for name in names}
