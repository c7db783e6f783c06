import math

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.nn.finite import check_finite

MASK = torch.tensor([[True, True], [True, False]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_words_and_padding(value: float) -> None:
    logits = torch.zeros(2, 2, 3)
    logits[1, 1, 0] = value
    check_finite(logits, MASK)
    logits[1, 0, 2] = value
    with pytest.raises(ConfigurationError, match=r"1 of 2 sentences are NaN or infinite.*learning rate"):
        check_finite(logits, MASK)
