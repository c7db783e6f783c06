"""The figures of the paper: phrase-level F1 on test data in per cent, means of five runs."""

from typing import Optional

BASE = "base"
"""The system that the paper compares the others with."""

# Table 3: by system and target.
_F1 = {
    BASE: {"es": 74.59, "nl": 79.57, "de": 70.79, "fr": 50.89, "zh": 76.42},
    "full": {"es": 76.75, "nl": 80.44, "de": 73.16, "fr": 55.30, "zh": 77.89},
}

# Table 4: the means over the five targets.
_AVERAGES = {
    BASE: 70.45,
    "full": 72.71,
    "no_max_loss": 71.36,
    "no_masking": 72.16,
    "no_max_loss_no_masking": 71.25,
}


def family(system: str) -> str:
    """The paper's name for a system of the shipped grids: they call it otherwise for targets without MISC."""
    return system.removesuffix("_no_misc")


def is_base(system: str) -> bool:
    """Whether it is the system that the paper compares the others with."""
    return family(system) == BASE


def f1(system: str, target: str) -> Optional[float]:
    """F1 of a system on a target, or `None`."""
    return _F1.get(family(system), {}).get(target)


def gain(system: str, target: str) -> Optional[float]:
    """How much better than the base model a system is on a target, or `None`."""
    value = f1(system, target)
    return None if value is None else value - _F1[BASE][target]


def average(system: str) -> Optional[float]:
    """Mean F1 of a system on the five targets, or `None`."""
    return _AVERAGES.get(family(system))


def average_gain(system: str) -> Optional[float]:
    """How much better than the base model a system is on average, or `None`."""
    value = average(system)
    return None if value is None else value - _AVERAGES[BASE]
