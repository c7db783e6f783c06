"""One hash of a file's content, for all that is recognised or verified by it."""

import hashlib
from pathlib import Path


def file_hash(file: str | Path) -> str:
    """The SHA-256 of the content of a file, in hexadecimal digits; the file need not fit into memory."""
    digest = hashlib.sha256()
    with Path(file).open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
