"""The page of the service: one file that loads nothing, and may run nothing but its own script."""

import hashlib
import json
import re
from base64 import b64encode
from functools import cache
from pathlib import Path

from allennlp_metaner import page_style

PAGE = Path(__file__).with_name("page.html")


@cache
def page() -> str:
    """The page, in HTML, with the look of all pages."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in {
        "/* look */": page_style.STYLE,
        "/* hues */": json.dumps(page_style.HUES),
        "/* other hues */": json.dumps(page_style.OTHER_HUES),
    }.items():
        text = text.replace(name, content)
    return text


@cache
def page_headers() -> dict[str, str]:
    """The headers that forbid the page everything but its own script and style, and this service."""
    sources = {name: " ".join(_hashes(name)) for name in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _hashes(element: str) -> list[str]:
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page(), re.DOTALL)
    digests = [hashlib.sha256(content.encode("utf-8")).digest() for content in contents]
    return [f"'sha256-{b64encode(digest).decode()}'" for digest in digests]
