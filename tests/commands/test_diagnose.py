"""`allennlp metaner-diagnose`: losses, gradients and counts against plain loops, and clear errors."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch
from allennlp.models import Model, load_archive
from allennlp.models.archival import Archive

from allennlp_metaner.commands.diagnose import diagnose, support_gradient, support_losses
from allennlp_metaner.data.tag_schemes import spans
from allennlp_metaner.predictors.adapting_predictor import AdaptingPredictor

Command = Callable[..., None]
# The step of `tiny_run`'s archive.
LEARNING_RATE, EPS = 1e-2, 1e-8


def plain_losses(model: Model, support: dict[str, Any]) -> torch.Tensor:
    """Eq. 3 of each sentence: the mean cross-entropy of its words."""
    output = model(tokens=support["tokens"])
    losses = [
        -rows[mask].log_softmax(-1).gather(1, tags[mask].unsqueeze(1)).mean()
        for rows, tags, mask in zip(output["logits"], support["tags"], output["mask"], strict=True)
    ]
    return torch.stack(losses)


def supports(archive: Archive, path: Path, number: int) -> list[dict[str, Any]]:
    reader: Any = archive.validation_dataset_reader
    instances = [instance for instance, _ in zip(reader.read(path), range(number), strict=False)]
    for instance in instances:
        reader.apply_token_indexers(instance)
    batch = Batch(instances)
    batch.index_instances(archive.model.vocab)
    return [task["support"] for task in batch.as_tensor_dict()["task"]]


@pytest.fixture
def path(tiny_run: SimpleNamespace) -> Path:
    return tiny_run.data / "conll2003/eng.testb"


def test_losses_and_gradient_equal_a_plain_loop(tiny_archive: Archive, path: Path) -> None:
    model = tiny_archive.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for support in supports(tiny_archive, path, 3):
        adapted = copy.deepcopy(model).eval()
        losses = plain_losses(adapted, support)
        losses.sum().backward()
        expected, parameters = [], [p for p in adapted.parameters() if p.requires_grad]
        with torch.no_grad():
            for parameter in parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                expected.append(gradient.clone())
                parameter -= LEARNING_RATE * gradient / (gradient.abs() + EPS)
            after = plain_losses(adapted, support)
        found = support_losses(model, support)
        assert [loss.before for loss in found] == pytest.approx(losses.tolist(), rel=1e-4)
        assert [loss.after for loss in found] == pytest.approx(after.tolist(), rel=1e-3)
        assert found[0].after != pytest.approx(found[0].before, rel=1e-2)
        ours, theirs = (
            torch.cat([g.flatten() for g in gs]) for gs in (support_gradient(model, support), expected)
        )
        assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-4
    assert model.max_loss_weight == 2.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_counts_equal_a_plain_loop(tiny_archive: Archive, path: Path) -> None:
    reader: Any = tiny_archive.validation_dataset_reader
    found = diagnose(tiny_archive, reader, str(path), 1000)
    instances = list(reader.read(path))
    tags = [
        [
            output["tags"]
            for output in AdaptingPredictor(tiny_archive.model, reader, adapt).predict_batch_instance(
                instances
            )
        ]
        for adapt in (False, True)
    ]
    changed = fixed = regressed = shared = types = 0
    for instance, before, after in zip(instances, *tags, strict=True):
        gold = instance["tags"].labels
        for own, old, new in zip(gold, before, after, strict=True):
            changed += old != new
            fixed += old != new == own
            regressed += new != old == own
        own_types = {type_ for type_, _, _ in spans(gold)}
        neighbors = instance["metadata"].metadata["support"]
        theirs = {type_ for neighbor in neighbors for type_, _, _ in spans(neighbor["tags"])}
        shared, types = shared + len(own_types & theirs), types + len(own_types)
    counted = found.tags
    assert changed > 0
    assert (counted.sentences, counted.changed, counted.fixed, counted.regressed) == (
        10,
        changed,
        fixed,
        regressed,
    )
    assert counted.changed == counted.fixed + counted.regressed + counted.still_wrong
    assert (found.retrieved.shared, found.retrieved.of_sentences) == (shared, types)
    assert found.random.of_sentences == 10 * types
    assert len(found.losses) == 20
    trainable = sum(p.numel() for p in tiny_archive.model.parameters() if p.requires_grad)
    assert found.gradient.total == 10 * trainable
    # Same seed, same result.
    assert diagnose(tiny_archive, reader, str(path), 1000).as_dict() == found.as_dict()


def test_command(
    command: Command,
    tiny_run: SimpleNamespace,
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new/diagnosis"
    # A model that does not adapt is diagnosed as if it did, by the settings that it has.
    overrides = json.dumps({"model.adaptation.enabled": False, "model.adaptation.num_neighbors": 1})
    command(
        "metaner-diagnose", tiny_run.archive, path, "--output-directory", output, "--max-sentences", 4,
        "-o", overrides,
    )  # fmt: skip
    page = (output / "diagnosis.md").read_text("utf-8")
    assert capsys.readouterr().out == page
    found = json.loads((output / "diagnosis.json").read_text("utf-8"))
    assert found["tags"]["sentences"] == found["support_loss"]["sentences"] == 4
    settings = found["settings"]
    assert (settings["optimizer"], settings["eps"], settings["steps"]) == ("AdamOptimizer", EPS, 1)
    assert (settings["archive"], settings["overrides"]) == (str(tiny_run.archive), overrides)
    assert found["gradient"]["half_step_size"] == pytest.approx(EPS, rel=2e-3)


def test_parameters_that_do_not_adapt_are_left_out(tiny_run: SimpleNamespace, path: Path) -> None:
    archive = load_archive(
        str(tiny_run.archive),
        overrides=json.dumps({"model.adaptation.inner_loop.parameters": ["^classifier"]}),
    )
    (support,) = supports(archive, path, 1)
    shapes = [gradient.shape for gradient in support_gradient(archive.model, support)]
    assert shapes == [archive.model.classifier.weight.shape, archive.model.classifier.bias.shape]


def test_refused(command: Command, tiny_run: SimpleNamespace, path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--max-sentences=0"):
        command("metaner-diagnose", tiny_run.archive, path, "--max-sentences", 0)
    plain = json.dumps({"validation_dataset_reader": {"type": "ner_columns", "num_columns": 4}})
    with pytest.raises(ConfigurationError, match=r"ColumnReader.*'pseudo_tasks'"):
        command("metaner-diagnose", tiny_run.archive, path, "-o", plain)
    empty = tmp_path / "empty"
    empty.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="sentence"):
        command("metaner-diagnose", tiny_run.archive, empty)
