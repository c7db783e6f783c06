"""Files that are written whole or not at all."""

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that, whatever happens, has either the new content or the old."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The same with JSON."""
    write_whole(path, f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode())
