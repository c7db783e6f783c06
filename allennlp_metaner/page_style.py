"""The look that all pages share: colours of text, ground and entity types, for light and dark screens."""

from html import escape

# The angles of the colours of entity types, far from each other.
HUES = {"PER": 210, "ORG": 130, "LOC": 35, "MISC": 285}
# For all other types.
OTHER_HUES = (175, 330, 65, 245)

STYLE = """
:root {
  color-scheme: light dark;
  --text: #1b1b1f; --quiet: #55565e; --page: #f4f4f6; --card: #fff; --line: #d5d6dc; --bad: #b3001b;
  --good: #0a6b2d; --accent: #2456c8; --on-accent: #fff; --fill: 75% 89%; --edge: 45% 42%; --hover: #f0f2f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e9e9ee; --quiet: #acaeb8; --page: #17181b; --card: #212226; --line: #3c3d45; --bad: #ff8f8f;
    --good: #7fd89a; --accent: #9db8ff; --on-accent: #10131c; --fill: 45% 23%; --edge: 45% 58%;
    --hover: #2a2c33;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2rem); max-width: 72rem;
  background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
mark, .missed, .wrong {
  padding: .125rem .25rem; border-radius: .25rem;
  -webkit-box-decoration-break: clone; box-decoration-break: clone;
}
mark {
  color: inherit; border: 1px solid hsl(var(--hue) var(--edge));
  background: hsl(var(--hue) var(--fill) / var(--strength, 1));
}
mark b, mark i, .missed b, .missed i, .wrong b {
  font-size: .72em; letter-spacing: .03em; white-space: nowrap; font-style: normal; unicode-bidi: isolate;
}
.missed { border: 2px dotted var(--bad); }
.missed b, .missed i { color: var(--bad); }
.strip { display: block; width: 100%; max-width: 24rem; }
.strip line { stroke: var(--line); stroke-width: 2; }
.strip circle { fill: var(--quiet); opacity: .35; }
.strip circle.own { fill: var(--accent); opacity: 1; }
.strip text { fill: var(--quiet); font-size: 11px; }
"""
"""What a page's own style comes after. `mark` is an entity, with its type in `b` and its hue in `--hue`.
`.strip` is the picture of [`similarity_strip`](./analysis/similarity_strip.md)."""

PAGE_END = "</body>\n</html>\n"


def page_start(title: str, style: str = "") -> str:
    """
    The beginning of a page that is one file: it forbids browsers to run or load anything. `PAGE_END` ends it.

    # Parameters

    title : `str`
    style : `str`, optional (default = `""`)
        The page's own, after `STYLE`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
    )


def hue(label: str) -> int:
    """
    The angle of an entity type's colour: the same on every page.

    # Parameters

    label : `str`
    """
    return HUES.get(label, OTHER_HUES[sum(map(ord, label)) % len(OTHER_HUES)])
