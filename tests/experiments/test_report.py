import csv
import io
import json
import shutil
from statistics import fmean, stdev
from typing import Any

import pytest

from allennlp_metaner.experiments.comparisons import compare, pairs
from allennlp_metaner.experiments.curves import read_curves
from allennlp_metaner.experiments.report import as_csv, as_markdown
from allennlp_metaner.experiments.results import Results

EVERY = {"base": 4, "full": 9, "no_masking": 5}


def report(experiment: Any) -> tuple[str, Results]:
    cells = experiment.cells()
    results = Results(cells, experiment.runs)
    compared = compare(results, pairs(results), resamples=50)
    return as_markdown(results, read_curves(cells, experiment.runs), *compared), results


def rows(text: str, heading: str, first: str) -> list[list[str]]:
    """The lines of the table below a heading whose first column is called so."""
    section = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = section.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return [found[0], *found[2:]]


@pytest.fixture
def finished(made_up_experiment: Any) -> Any:
    for cell in made_up_experiment.cells():
        made_up_experiment.finish(cell, EVERY[cell.system])
        made_up_experiment.train(cell, [0.5, 0.875])
    return made_up_experiment


def test_f1(finished: Any) -> None:
    text, results = report(finished)
    assert "10 of 10 cells are finished." in text
    assert "## Missing" not in text
    header, base, full, no_masking = rows(text, "## F1", "system")
    assert header == ["system", "es", "nl", "average", "sentences shown"]
    scores = list(results.f1("base", "es").values())
    assert scores[0] != scores[1]
    assert base[1] == f"{fmean(scores):.2f} ± {stdev(scores):.2f} (2)"
    # es and nl have the same made-up sentences.
    assert base[1] == base[2] == base[3]
    assert full[0] == "full"
    assert no_masking[1:] == [f"{results.f1('no_masking', 'es')[1]:.2f} (1)"] * 3 + ["-"]
    by_type = rows(text, "## F1 by type", "nl")
    assert by_type[0] == ["nl", "LOC", "MISC", "ORG", "PER", "sentences shown"]
    per = results.f1("full", "nl", "PER").values()
    assert by_type[2][4] == f"{fmean(per):.2f} ± {stdev(per):.2f} (2)"


def test_comparisons(finished: Any) -> None:
    text, results = report(finished)
    assert "two-sided" in text and "Of a system with one seed, only sentences are resampled" in text
    table = rows(text, "## Comparisons", "target")
    columns = ["target", "systems", "difference", "95% interval", "p", "sentences", "seeds"]
    assert table[0] == [*columns, "sentences shown"]
    difference = fmean(results.f1("full", "es").values()) - fmean(results.f1("base", "es").values())
    assert table[1][:3] == ["es", "full - base", f"{difference:+.2f}"]
    assert table[1][5:] == ["30", "2 pairs", "-"]
    assert table[2][6] == "1 each"


def test_paper(finished: Any) -> None:
    text, results = report(finished)
    base, full, no_masking = (
        fmean(results.f1(system, "es").values()) for system in ("base", "full", "no_masking")
    )
    table = rows(text, "## Compared with the paper", "target")
    assert table[1:3] == [
        ["es", "base", f"{base:.2f}", "74.59", f"{base - 74.59:+.2f}", "-", "-", "-"],
        ["es", "full", f"{full:.2f}", "76.75", f"{full - 76.75:+.2f}", f"{full - base:+.2f}", "+2.16", "-"],
    ]
    averages = rows(text, "## Compared with the paper", "system")
    # Over the seed that both have.
    gain = no_masking - results.f1("base", "es")[1]
    assert gain != no_masking - base
    assert averages[1:] == [
        ["base", "es, nl", f"{base:.2f}", "70.45", "-", "-"],
        ["full", "es, nl", f"{full:.2f}", "72.71", f"{full - base:+.2f}", "+2.26"],
        ["no_masking", "es, nl", f"{no_masking:.2f}", "72.16", f"{gain:+.2f}", "+1.71"],
    ]


def test_trainings(finished: Any) -> None:
    folder = finished.runs / finished.cells("full")[0].needs.folder
    record = (folder / "record.json").read_text()
    (folder / "record.json").write_text(record[:-1] + ', "recovered": true}')
    text, _ = report(finished)
    table = rows(text, "## Trainings", "training")
    assert len(table) == 1 + 5
    assert table[1][1:] == ["base", "finished", "1", "100", "-", "1.5", "cpu", "87.50"]
    assert table[3][6] == "> 1.5"
    assert "this is the last attempt alone" in text


def test_missing(finished: Any) -> None:
    for cell in finished.cells("full", "es"):
        shutil.rmtree(finished.runs / cell.folder)
    finished.write_record(finished.cells("no_masking", "nl")[0], status="failed", error="A | B")
    text, _ = report(finished)
    assert "7 of 10 cells are finished." in text
    assert "| full | es | 1, 2 | no record |" in text
    assert r"| no_masking | nl | 1 | failed: A \| B |" in text
    _, _, full, no_masking = rows(text, "## F1", "system")
    assert full[1] == full[3] == no_masking[2] == no_masking[3] == "-" != full[2]
    assert "Not compared, for lack of finished cells" in text
    assert ": full - base on es; no_masking - base on nl." in text
    assert rows(text, "## Compared with the paper", "system")[2][:2] == ["full", "nl"]


def test_targets_of_their_own(finished: Any) -> None:
    """Without MISC, other systems stand in for base and full."""
    grid = finished.contents
    grid["targets"]["zh"] = {"file": "zh"}
    for name in ("base", "full"):
        grid["systems"][name]["targets"] = ["es", "nl"]
        grid["systems"][f"{name}_no_misc"] = {"config": f"{name}.jsonnet", "targets": ["zh"]}
    grid["systems"]["no_masking"]["targets"] = ["es", "nl"]
    finished.write_grid(grid)
    for cell in finished.cells(target="zh"):
        finished.finish(cell, 5)
    text, _ = report(finished)
    assert "| system | es | nl | average |" in text and "| system | zh | sentences shown |\n" in text
    assert [row[:2] for row in rows(text, "## Compared with the paper", "target")[-2:]] == [
        ["zh", "base_no_misc"],
        ["zh", "full_no_misc"],
    ]
    assert rows(text, "## Compared with the paper", "target")[-1][5:] == ["+0.00", "+1.47", "-"]
    averages = rows(text, "## Compared with the paper", "system")
    assert [row[:2] for row in averages[1:]] == [
        ["base", "es, nl, zh"],
        ["full", "es, nl, zh"],
        ["no_masking", "es, nl"],
    ]


def test_nothing_in_the_paper(made_up_experiment: Any) -> None:
    grid = {**made_up_experiment.contents, "systems": {"mine": {"config": "base.jsonnet"}}}
    made_up_experiment.write_grid(grid)
    made_up_experiment.finish(made_up_experiment.cells()[0], 3)
    text, _ = report(made_up_experiment)
    assert "No figures of the paper are known here for these systems and targets." in text
    # Nor is there anything to compare.
    assert "## Comparisons" not in text


def test_csv(finished: Any) -> None:
    _, results = report(finished)
    lines = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(lines) == 10 * 5
    assert [line["type"] for line in lines[:5]] == ["overall", "LOC", "MISC", "ORG", "PER"]
    for line in lines:
        scores = results.of(line["system"], line["target"])[int(line["seed"]) - 1].scores[line["type"]]
        assert [line[name] for name in ("precision", "recall", "f1")] == [f"{score:.4f}" for score in scores]
    assert (lines[0]["seconds"], lines[0]["device"]) == ("6.0", "cpu")
    assert lines[0]["cell"].startswith("base-es-1-") and lines[0]["training"].startswith("base-1-")


def test_sentences_shown(finished: Any) -> None:
    """Where the configs say how many, in every table, and for the plain training on as many sentences."""
    loader = {"batches_per_epoch": 50, "batch_size": 12}
    plain = {"trainer": {"num_epochs": 2}, "data_loader": loader, "name": "plain"}
    meta = {
        "trainer": {"num_epochs": 2, "type": "meta"},
        "dataset_reader": {"type": "pseudo_tasks", "retriever": {"num_neighbors": 2}},
        "data_loader": {**loader, "batch_size": 4},
    }
    for name, config in {"plain": plain, "full": meta}.items():
        (finished.grid.parent / f"{name}.jsonnet").write_text(json.dumps(config))
    systems = {**finished.contents["systems"], "plain": {"config": "plain.jsonnet", "adapt": False}}
    systems["full"]["config"] = "full.jsonnet"
    finished.write_grid({**finished.contents, "systems": systems})
    for cell in finished.cells():
        finished.finish(cell, EVERY.get(cell.system, 3))
    finished.train(finished.cells("full")[0], [0.5])
    text, _ = report(finished)
    assert [row[-1] for row in rows(text, "## F1", "system")[1:]] == ["-", "1,200", "-", "1,200"]
    assert {row[1]: row[-1] for row in rows(text, "## Comparisons", "target")[1:]} == {
        "full - plain": "1,200",
        "no_masking - base": "-",
        "plain - base": "1,200 and -",
    }
    (training,) = (
        row for row in rows(text, "## Trainings", "training") if row[1:4] == ["full", "finished", "1"]
    )
    assert training[5] == "600"
