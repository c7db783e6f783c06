"""What adaptation does to the sentences of a file, in numbers and as a page."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Optional

from allennlp_metaner.analysis.gradient_sizes import (
    GradientSizes,
    OptimizerMaker,
    first_steps,
    half_step_size,
)
from allennlp_metaner.analysis.markdown import markdown_table
from allennlp_metaner.data.tag_schemes import spans

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the absolute values of the support's gradient."""


def entity_types(tags: Sequence[str]) -> set[str]:
    """The types of the entities of a sentence, by conlleval's rules."""
    return {type_ for type_, _, _ in spans(tags)}


@dataclass
class TagChanges:
    """
    The words whose tags adaptation changes. Of those with a known gold tag, a change is `fixed` (only the
    adapted tag is right), `regressed` (only the tag without adaptation is) or `still_wrong`.
    """

    sentences: int = 0
    changed_sentences: int = 0
    words: int = 0
    changed: int = 0
    fixed: int = 0
    regressed: int = 0
    still_wrong: int = 0

    def add(self, before: Sequence[str], after: Sequence[str], gold: Optional[Sequence[str]]) -> None:
        """Counts a sentence by its tags without and with adaptation, and its gold tags if they are known."""
        self.sentences += 1
        self.words += len(before)
        self.changed_sentences += list(before) != list(after)
        for position, (old, new) in enumerate(zip(before, after, strict=True)):
            if old == new:
                continue
            self.changed += 1
            if gold is not None:
                self.fixed += new == gold[position]
                self.regressed += old == gold[position]
                self.still_wrong += gold[position] not in (old, new)


@dataclass
class TypeOverlap:
    """
    How far the entity types of sentences and of their neighbours agree: `shared` counts types that both have,
    `of_sentences` and `of_neighbors` those that either has, each once a sentence.
    """

    shared: int = 0
    of_sentences: int = 0
    of_neighbors: int = 0

    def add(self, sentence: set[str], neighbors: Iterable[set[str]]) -> None:
        """Counts a sentence by its own types and those of each of its neighbours."""
        found = set().union(*neighbors)
        self.shared += len(sentence & found)
        self.of_sentences += len(sentence)
        self.of_neighbors += len(found)

    def as_dict(self) -> dict[str, Optional[float]]:
        """The share of a sentence's types that a neighbour has, and that of the neighbours' that it has."""
        return {
            "sentence_types_in_neighbors": _share(self.shared, self.of_sentences),
            "neighbor_types_in_sentence": _share(self.shared, self.of_neighbors),
        }


class SupportLoss(NamedTuple):
    """The adaptation loss of a support sentence before and after the inner steps on its support set."""

    before: float
    after: float


@dataclass
class Diagnosis:
    """
    What is counted of a file, sentence by sentence.

    # Parameters

    make_optimizer : `Callable[[list[tuple[str, torch.nn.Parameter]]], torch.optim.Optimizer]`
        The inner loop's.
    settings : `dict[str, Any]`
        Of the archive, the file and the adaptation, shown as they are.
    """

    make_optimizer: OptimizerMaker
    settings: dict[str, Any]
    losses: list[SupportLoss] = field(default_factory=list)
    gradient: GradientSizes = field(default_factory=GradientSizes)
    tags: TagChanges = field(default_factory=TagChanges)
    retrieved: TypeOverlap = field(default_factory=TypeOverlap)
    random: TypeOverlap = field(default_factory=TypeOverlap)

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them: shares are from 0 to 1, `None` where there is nothing to count."""
        sizes = [self.gradient.quantile(share) for share in QUANTILES]
        steps = first_steps(self.make_optimizer, sizes)
        half = half_step_size(self.make_optimizer)
        number = len(self.losses)
        return {
            "settings": self.settings,
            "support_loss": {
                "sentences": number,
                "before": _share(sum(loss.before for loss in self.losses), number),
                "after": _share(sum(loss.after for loss in self.losses), number),
                "share_lower": _share(sum(loss.after < loss.before for loss in self.losses), number),
            },
            "gradient": {
                "entries": self.gradient.total,
                "share_zero": _share(self.gradient.zeros, self.gradient.total),
                "quantiles": [
                    {"share_below": share, "size": size, "share_of_full_step": step}
                    for share, size, step in zip(QUANTILES, sizes, steps, strict=True)
                ],
                "half_step_size": half,
                "share_from_half_step_size": self.gradient.share_from(half),
            },
            "tags": {
                **asdict(self.tags),
                "share_changed": _share(self.tags.changed, self.tags.words),
                "share_fixed_of_changed": _share(self.tags.fixed, self.tags.changed),
            },
            "entity_types": {"retrieved": self.retrieved.as_dict(), "random": self.random.as_dict()},
        }


def as_markdown(found: dict[str, Any]) -> str:
    """The result of [`Diagnosis.as_dict`](#as_dict) as a page: each figure with an explanation."""
    settings = "".join(
        f"- {name.replace('_', ' ')}: `{' '.join(str(value).split())}`\n"
        for name, value in found["settings"].items()
    )
    tables = {
        "Does the step fit the support set?": _loss_rows(found["support_loss"]),
        "How large is the support's gradient?": _gradient_rows(found["gradient"], found["settings"]),
        "Which tags change?": _tag_rows(found["tags"]),
        "Are the neighbours like the sentence?": _type_rows(found["entity_types"]),
    }
    parts = [f"# What adaptation does\n\n{settings}"]
    parts += [
        f"## {heading}\n\n{markdown_table(('', 'figure', 'what it says'), rows, left=3)}"
        for heading, rows in tables.items()
    ]
    return "\n".join(parts)


Rows = list[tuple[str, str, str]]


def _loss_rows(loss: dict[str, Any]) -> Rows:
    return [
        (
            "loss before",
            _number(loss["before"]),
            f"Mean of {loss['sentences']} support sentences. Close to 0: the model knows them already.",
        ),
        ("loss after", _number(loss["after"]), "The same with the adapted weights."),
        (
            "sentences with a lower loss",
            _percent(loss["share_lower"]),
            "Far below 100 %: the step is too long.",
        ),
    ]


def _gradient_rows(gradient: dict[str, Any], settings: dict[str, Any]) -> Rows:
    rows = [
        (
            f"{_percent(row['share_below'])} of |g| are below",
            f"{row['size']:.1e}",
            f"Such an entry moves its weight by {_percent(row['share_of_full_step'])} of a full step.",
        )
        for row in gradient["quantiles"]
    ]
    return [
        *rows,
        ("exactly zero", _percent(gradient["share_zero"]), "Their weights do not move at all."),
        (
            "|g| of half a step",
            f"{gradient['half_step_size']:.1e}",
            f"Measured on the optimizer (eps = {settings['eps']}). Larger entries give a full step, "
            "of which only their sign decides; smaller ones hardly move their weight.",
        ),
        (
            "entries above that",
            _percent(gradient["share_from_half_step_size"]),
            "Near 100 %: a sign step, however small the gradient. Near 0 %: a step in proportion to it.",
        ),
    ]


def _tag_rows(tags: dict[str, Any]) -> Rows:
    sentences = f"{tags['changed_sentences']} of {tags['sentences']} sentences have another tag."
    known = tags["fixed"] + tags["regressed"] + tags["still_wrong"]
    rows = [
        (
            "changed tags",
            _percent(tags["share_changed"]),
            f"{tags['changed']} of {tags['words']} words; {sentences}",
        )
    ]
    if tags["changed"] and not known:
        return [*rows, ("right changes", "-", "Not known: the file has no gold tags.")]
    return [
        *rows,
        ("fixed", str(tags["fixed"]), "Changes from a wrong tag to the right one."),
        (
            "regressed",
            str(tags["regressed"]),
            "Changes from the right tag to a wrong one. More than fixed: a loss.",
        ),
        ("still wrong", str(tags["still_wrong"]), "Changes from one wrong tag to another."),
        (
            "right changes",
            _percent(tags["share_fixed_of_changed"]),
            "The share of fixed tags among changed ones.",
        ),
    ]


def _type_rows(types: dict[str, dict[str, Any]]) -> Rows:
    random = types["random"]
    return [
        (
            "sentence's types that a neighbour has",
            _percent(types["retrieved"]["sentence_types_in_neighbors"]),
            f"Random support of the same size: {_percent(random['sentence_types_in_neighbors'])}. Hardly "
            "more than that: retrieval does not find sentences with the same entities.",
        ),
        (
            "neighbours' types that the sentence has",
            _percent(types["retrieved"]["neighbor_types_in_sentence"]),
            f"Random support: {_percent(random['neighbor_types_in_sentence'])}. The rest of their entity "
            "types is of no use for the sentence.",
        ),
    ]


def _share(part: float, whole: int) -> Optional[float]:
    return part / whole if whole else None


def _number(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(share: Optional[float]) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"
