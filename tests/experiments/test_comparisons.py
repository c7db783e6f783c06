from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.experiments.comparisons import Pair, compare, pairs
from allennlp_metaner.experiments.results import Results

EVERY = {"base": 3, "full": 9, "no_masking": 3}


def results(experiment: Any) -> Results:
    return Results(experiment.cells(), experiment.runs)


def finish_all(experiment: Any) -> Results:
    for cell in experiment.cells():
        experiment.finish(cell, EVERY[cell.system])
    return results(experiment)


def test_pairs(made_up_experiment: Any) -> None:
    grid = made_up_experiment.contents
    systems = {**grid["systems"], "zother": {"config": "base.jsonnet", "targets": ["fr"]}}
    targets = {**grid["targets"], "fr": {"file": "fr"}}
    systems["full"] = {"config": "full.jsonnet", "targets": ["nl", "fr"]}
    systems["base"] = {"config": "base.jsonnet", "targets": ["es", "nl"]}
    systems["no_masking"] = {"config": "no_masking.jsonnet", "targets": ["es", "nl"]}
    made_up_experiment.write_grid({"seeds": [1], "systems": systems, "targets": targets})
    found = results(made_up_experiment)
    default = [
        Pair("es", "no_masking", "base"),
        Pair("nl", "full", "base"),
        Pair("nl", "no_masking", "base"),
        Pair("fr", "zother", "full"),
    ]
    assert pairs(found) == default
    # Each once, one way round or the other.
    assert pairs(found, [("full", "no_masking"), ("base", "full")]) == [
        *default,
        Pair("nl", "full", "no_masking"),
    ]
    for first, second, message in (
        ("full", "ful", "has no system ful, but base, full, no_masking, zother"),
        ("full", "full", "give two different systems"),
        ("base", "zother", "no target in common; base is evaluated on es, nl, zother on fr"),
    ):
        with pytest.raises(ConfigurationError, match=f"--compare {first} {second}: .*{message}"):
            pairs(found, [(first, second)])


def test_pairs_of_the_same_kind(made_up_experiment: Any) -> None:
    """Fine-tuned on as much of the target's data, and starting from one model or the other."""
    names = ("base_es_1", "base_es_5", "full_es_1", "full_es_5", "fullest")
    systems = {name: {"config": "base.jsonnet", "targets": ["es"]} for name in names}
    made_up_experiment.write_grid({**made_up_experiment.contents, "systems": systems})
    assert pairs(results(made_up_experiment)) == [
        Pair("es", "base_es_5", "base_es_1"),
        Pair("es", "full_es_1", "base_es_1"),
        Pair("es", "full_es_5", "base_es_5"),
        Pair("es", "fullest", "base_es_1"),
    ]


def test_compare(made_up_experiment: Any) -> None:
    found = finish_all(made_up_experiment)
    compared, missing = compare(found, pairs(found), resamples=300)
    assert not missing
    assert [(c.pair, c.seeds_paired, c.num_sentences) for c in compared] == [
        (Pair("es", "full", "base"), True, 30),
        (Pair("es", "no_masking", "base"), True, 30),
        (Pair("nl", "full", "base"), True, 30),
        (Pair("nl", "no_masking", "base"), True, 30),
    ]
    # Of one seed, the other system's second seed is left out.
    assert compared[1].first_seeds == compared[1].second_seeds == [1]
    alone = found.f1("no_masking", "es")[1] - found.f1("base", "es")[1]
    assert 100 * compared[1].outcome.difference == pytest.approx(alone)
    better = compared[0].outcome
    means = [sum(found.f1(system, "es").values()) / 2 for system in ("full", "base")]
    assert 100 * better.difference == pytest.approx(means[0] - means[1])
    assert 0 < better.low < better.difference < better.high
    assert better.p_value < 0.05 < compared[1].outcome.p_value


def test_the_order_of_seeds_does_not_matter(made_up_experiment: Any) -> None:
    grid = made_up_experiment.contents
    grid["systems"]["full"]["seeds"] = [2, 1]
    made_up_experiment.write_grid(grid)
    found = finish_all(made_up_experiment)
    ((compared,), _) = compare(found, [Pair("es", "full", "base")], resamples=100)
    assert compared.seeds_paired


def test_no_seed_in_common(made_up_experiment: Any) -> None:
    grid = made_up_experiment.contents
    grid["systems"]["full"]["seeds"] = [3, 4, 5]
    made_up_experiment.write_grid(grid)
    found = finish_all(made_up_experiment)
    ((compared,), _) = compare(found, [Pair("es", "full", "base")], resamples=100)
    assert not compared.seeds_paired
    assert (compared.first_seeds, compared.second_seeds) == ([3, 4, 5], [1, 2])


def test_without_results(made_up_experiment: Any) -> None:
    for cell in made_up_experiment.cells("base") + made_up_experiment.cells("full", "es"):
        made_up_experiment.finish(cell, 3)
    for cell in made_up_experiment.cells("base", "nl"):
        (made_up_experiment.runs / cell.folder / "predictions.jsonl").unlink()
    found = results(made_up_experiment)
    compared, missing = compare(found, pairs(found), resamples=10)
    assert [c.pair for c in compared] == [Pair("es", "full", "base")]
    assert len(missing) == 3


def test_other_sentences(made_up_experiment: Any) -> None:
    finish_all(made_up_experiment)
    pair = [Pair("es", "full", "base")]
    cell = made_up_experiment.cells("base", "es")[1]
    sentences = made_up_experiment.sentences
    made_up_experiment.finish(cell, 3, sentences[:-1])
    with pytest.raises(
        ConfigurationError, match=r"full-es-1-.*predictions.jsonl and .*base-es-2-.*30 and 29 sent"
    ):
        compare(results(made_up_experiment), pair)
    words, gold = sentences[4]
    made_up_experiment.finish(cell, 3, [*sentences[:4], (words[::-1], gold), *sentences[5:]])
    with pytest.raises(
        ConfigurationError, match="words or gold tags of line 5 differ; evaluate both systems on"
    ):
        compare(results(made_up_experiment), pair)
    for cell in made_up_experiment.cells(target="es"):
        made_up_experiment.finish(cell, 3, [])
