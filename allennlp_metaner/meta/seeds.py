"""Random seeds."""

import hashlib


def derived_seed(*parts: int) -> int:
    """A random seed that depends on all `parts` and nothing else, so that any step can be repeated alone."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")
