"""The distance of a student's probabilities from its teacher's, word by word in plain Python."""

import math

import pytest
import torch

from allennlp_metaner.nn.soft_labels import SOFT_LABEL_LOSSES, soft_token_losses


@pytest.mark.parametrize("kind", SOFT_LABEL_LOSSES)
def test_against_plain_python(kind: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    teacher = torch.randn(2, 3, 4, dtype=torch.float64).softmax(dim=-1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = soft_token_losses(logits, teacher, mask, kind)
    for sentence in range(2):
        for word in range(3):
            powers = [math.exp(value) for value in logits[sentence, word].tolist()]
            student = [power / sum(powers) for power in powers]
            pairs = list(zip(student, teacher[sentence, word].tolist(), strict=True))
            if kind == "cross_entropy":
                expected = -sum(p * math.log(s) for s, p in pairs)
            else:
                expected = sum((s - p) ** 2 for s, p in pairs) / len(pairs)
            assert found[sentence, word].item() == pytest.approx(expected * mask[sentence, word].item())


def test_smallest_where_student_and_teacher_agree() -> None:
    teacher = torch.tensor([[[0.7, 0.2, 0.1]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    for kind in SOFT_LABEL_LOSSES:
        logits = teacher.log().requires_grad_()
        soft_token_losses(logits, teacher, mask, kind).sum().backward()
        assert logits.grad is not None and logits.grad.abs().max() < 1e-6
