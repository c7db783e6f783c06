"""Case studies as one HTML page, which needs neither a network nor scripts."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple, Optional

from allennlp_metaner.analysis.case_studies import KINDS, Case, Differences, missed
from allennlp_metaner.analysis.errors import Counts
from allennlp_metaner.analysis.similarity_strip import similarity_strip
from allennlp_metaner.data.raw_text import CHINESE_OR_KANA
from allennlp_metaner.data.tag_schemes import Span, spans
from allennlp_metaner.page_style import PAGE_END, hue, page_start

_STYLE = """
h2 { margin: 0; font-size: 1rem; }
h3 { margin: .75rem 0 .25rem; font-size: .875rem; font-weight: 600; color: var(--quiet); }
p { margin: .25rem 0 .75rem; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .9375rem; }
th, td { padding: .25rem 1rem .25rem 0; text-align: start; vertical-align: top; overflow-wrap: normal; }
td:first-of-type { overflow-wrap: anywhere; }
thead th { color: var(--quiet); font-weight: 600; }
tbody tr { border-top: 1px solid var(--line); }
code { display: block; font-size: .8125rem; }
fieldset, article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
fieldset { margin: 1rem 0; padding: .25rem 1rem .5rem; }
legend { padding: 0 .25rem; color: var(--quiet); font-size: .875rem; }
fieldset label { display: inline-block; margin-inline-end: 1.25rem; }
article { margin: 1rem 0; padding: .75rem 1rem 1rem; border-inline-start: .3rem solid var(--line); }
.fixed { border-inline-start-color: var(--good); }
.regressed { border-inline-start-color: var(--bad); }
h2 span { margin-inline-start: .5rem; font-weight: 400; color: var(--quiet); }
dl { display: grid; grid-template-columns: 5.5rem 1fr; gap: .375rem .75rem; margin: .5rem 0 0; }
dt { color: var(--quiet); font-size: .875rem; }
dt, dd, .key { margin: 0; line-height: 1.9; }
.support { font-size: .9375rem; }
mark b, .wrong b, .missed b { margin-inline-start: .35em; }
.wrong { border: 2px dashed var(--bad); }
.right { color: var(--good); }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd + dt { margin-top: .375rem; }
  article { padding: .625rem .75rem; }
}
"""


class Side(NamedTuple):
    """
    One of the two models.

    # Parameters

    name : `str`
        What its archive is called.
    adapts : `bool`
        Whether it is adapted to every sentence.
    overrides : `Sequence[str]`, optional (default = `()`)
        The settings that its archive was loaded with.
    """

    name: str
    adapts: bool
    overrides: Sequence[str] = ()


def render(differences: Differences, base: Side, adapted: Side, data_file: str) -> str:
    """
    # Parameters

    differences : `Differences`
    base : `Side`
    adapted : `Side`
    data_file : `str`
        The name of the file whose sentences are compared.

    # Returns

    `str`
        A page in HTML. Whatever comes from data or arguments is escaped in it, and it forbids browsers to run
        or load anything.
    """
    colours = _colours(differences.cases)
    similarities = [support.similarity for case in differences.cases for support in case.support]
    types = "".join(f"\n.t{number} {{ --hue: {hue(type_)}; }}" for type_, number in colours.items())
    shown = {case.kind for case in differences.cases}
    kinds = [kind for kind in KINDS if kind in shown]
    only = "".join(
        f"\nbody:has(#only-{kind}:checked) article:not(.{kind}) {{ display: none; }}" for kind in kinds
    )
    parts = [
        *_header(differences, base, adapted, data_file),
        *_key(colours, differences),
        *_filter(kinds),
        "<main>",
        *(_case(case, colours, similarities) for case in differences.cases),
        "</main>",
    ]
    start = page_start(f"Case studies: {data_file}", f"{_STYLE}{types}{only}\n")
    body = "\n".join(parts)
    return f"{start}{body}\n{PAGE_END}"


def _colours(cases: Sequence[Case]) -> dict[str, int]:
    """The number of each entity type's colour, in the alphabet's order."""
    tags = [tags for case in cases for tags in (case.gold or (), case.base, case.adapted)]
    tags += [support.tags for case in cases for support in case.support]
    types = sorted({type_ for sentence in tags for type_, _, _ in spans(sentence)})
    return {type_: number for number, type_ in enumerate(types)}


def _header(differences: Differences, base: Side, adapted: Side, data_file: str) -> Iterator[str]:
    yield f"<header>\n<h1>Case studies</h1>\n<p>{escape(data_file)}</p>"
    f1 = '<th scope="col">F1</th>' if differences.base else ""
    yield (
        '<table>\n<thead><tr><th scope="col">model</th><th scope="col">archive</th>'
        f'<th scope="col">adaptation</th>{f1}</tr></thead>\n<tbody>'
    )
    yield _model("base", base, differences.base)
    yield _model("adapted", adapted, differences.adapted)
    yield "</tbody>\n</table>"
    kinds = ", ".join(f"{differences.kinds[kind]} {kind}" for kind in KINDS if differences.kinds[kind])
    shown = len(differences.cases)
    summary = f"{differences.differing} of {differences.sentences} sentences differ"
    summary += f": {kinds}." if kinds else "."
    if shown < differences.differing:
        summary += f" Shown are the first {shown} of them."
    yield f"<p>{summary}</p>\n</header>"


def _model(role: str, side: Side, counts: Optional[Counts]) -> str:
    overrides = "".join(f"<code>{escape(part)}</code>" for part in side.overrides)
    f1 = f'<td class="number">{100 * counts.f1:.2f}</td>' if counts else ""
    return (
        f'<tr><th scope="row">{role}</th><td>{escape(side.name)}{overrides}</td>'
        f"<td>{'yes' if side.adapts else 'no'}</td>{f1}</tr>"
    )


def _key(colours: Mapping[str, int], differences: Differences) -> Iterator[str]:
    """What the colours and marks mean."""
    if not colours:
        return
    types = [f'<mark class="t{colour}">{escape(type_)}</mark>' for type_, colour in colours.items()]
    yield f'<p class="key">Entities: {" ".join(types)}</p>'
    if differences.base:
        yield (
            '<p class="key"><span class="wrong">wrong<b>✗</b></span> means no gold entity, '
            '<span class="missed">missed</span> a gold entity without any prediction</p>'
        )


def _filter(kinds: Sequence[str]) -> Iterator[str]:
    if len(kinds) < 2:
        return
    yield "<fieldset>\n<legend>Show</legend>"
    yield '<label><input type="radio" name="only" id="only-all" checked> all</label>'
    for kind in kinds:
        yield (
            f'<label><input type="radio" name="only" id="only-{kind}"> {kind} <small>({KINDS[kind]})</small>'
            "</label>"
        )
    yield "</fieldset>"


def _case(case: Case, colours: Mapping[str, int], similarities: Sequence[float]) -> str:
    gold = None if case.gold is None else spans(case.gold)
    lines = [f'<article class="{case.kind}" id="sentence-{case.number}">']
    lines.append(f"<h2>Sentence {case.number}<span>{case.kind}</span></h2>\n<dl>")
    if gold is not None:
        lines.append(_row("gold", _sentence(case.words, gold, colours)))
    for name, tags in (("base", case.base), ("adapted", case.adapted)):
        found = spans(tags)
        right = ' <span class="right">✓</span>' if found == gold else ""
        lines.append(_row(name + right, _sentence(case.words, found, colours, gold)))
    lines.append("</dl>")
    if case.support:
        lines.append("<h3>Adapted to, with similarity</h3>")
        own = [support.similarity for support in case.support]
        lines.append(similarity_strip(own, similarities, f"sentence {case.number}"))
        lines.append('<dl class="support">')
        for words, tags, similarity in case.support:
            name = f'<span class="number">{similarity:.3f}</span>'
            lines.append(_row(name, _sentence(words, spans(tags), colours)))
        lines.append("</dl>")
    lines.append("</article>")
    return "\n".join(lines)


def _row(name: str, sentence: str) -> str:
    # The language of a sentence is not known: an empty `lang` keeps it from being taken for English.
    return f'<dt>{name}</dt><dd lang="" dir="auto">{sentence}</dd>'


def _sentence(
    words: Sequence[str],
    entities: Sequence[Span],
    colours: Mapping[str, int],
    gold: Optional[Sequence[Span]] = None,
) -> str:
    """The words with the entities marked; those that are wrong or missed, too, if `gold` is given."""
    before, after = {}, {}
    for entity in entities:
        type_, first, last = entity
        wrong = gold is not None and entity not in gold
        before[first] = f'<mark class="t{colours[type_]}{" wrong" * wrong}">'
        after[last] = f"<b>{escape(type_)}{' ✗' * wrong}</b></mark>"
    for type_, first, last in missed(gold or (), entities):
        before[first] = '<span class="missed">'
        after[last] = f"<b>{escape(type_)} missed</b></span>"
    return "".join(
        f"{_gap(words, position)}{before.get(position, '')}{escape(word)}{after.get(position, '')}"
        for position, word in enumerate(words)
    )


def _gap(words: Sequence[str], position: int) -> str:
    """What stands before a word: nothing beside Chinese characters and kana, or else a blank."""
    if position == 0:
        return ""
    beside = words[position - 1][-1:] + words[position][:1]
    return "" if CHINESE_OR_KANA.search(beside) else " "
