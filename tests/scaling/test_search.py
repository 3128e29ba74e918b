"""What a sweep has tried: which learning rates lie at the edge, and what is not trained yet."""

import dataclasses

import pytest

from nfnet_eqx.scaling import Point, compare
from nfnet_eqx.scaling._search import missing_words, searched


def run(rate: float, loss: float | None, epochs: float = 1.0, model: str = "m", **others: object) -> Point:
    point = Point(
        run=f"{model}-{epochs}-{rate}-{loss}", model=model, family="NFNet", parameters=1e4, epochs=epochs,
        images=epochs * 50_000, flops=epochs * 1e9, learning_rate=rate, loss=loss,
    )  # fmt: skip
    return dataclasses.replace(point, **others)


def lost(rate: float, **others: object) -> Point:
    # It diverged after a few steps: it has not seen the images that its epochs stand for.
    return run(rate, None, images=1_280.0, flops=2e7, status="diverged", **others)


def test_a_best_rate_between_others_is_not_at_the_edge():
    found = searched([run(0.2, 1.2), run(0.4, 1.0), run(0.8, 1.1)])
    assert found.tried == (3,) and found.edge == () and [p.learning_rate for p in found.chosen] == [0.4]


@pytest.mark.parametrize("best", [0.2, 0.8])
def test_the_lowest_and_the_highest_rate_are_at_the_edge(best: float):
    found = searched([run(rate, 1.0 if rate == best else 1.2) for rate in (0.2, 0.4, 0.8)])
    assert [point.learning_rate for point in found.edge] == [best]


def test_a_rate_that_diverged_was_tried():
    found = searched([run(0.2, 1.2), run(0.4, 1.0), lost(0.8)])
    assert found.tried == (3,) and found.edge == ()
    assert len(searched([run(0.4, 1.0), lost(0.8)]).edge) == 1  # below it nothing was tried


def test_seeds_are_averaged_before_the_best_rate_is_chosen():
    found = searched([run(0.2, 0.9, seed=0), run(0.2, 1.5, seed=1), run(0.4, 1.0), run(0.8, 1.1)])
    assert [point.learning_rate for point in found.chosen] == [0.4]


def test_a_table_without_learning_rates_chose_none():
    found = searched([dataclasses.replace(run(0.4, 1.0), learning_rate=None)])
    assert found == ((), (), (), 0, 1)


def test_a_sweep_that_is_under_way_misses_what_a_complete_model_has():
    runs = [run(0.4, 1.0, epochs) for epochs in (1.0, 2.0, 4.0)]
    found = searched([*runs, run(0.4, 1.1, 1.0, "large")])
    assert (found.missing, found.pairs) == (2, 6)
    assert missing_words(found) == "2 of 6 pairs of model and epochs have no run; is the sweep still under way?"


def test_a_table_whose_models_have_budgets_of_their_own_misses_none():
    assert searched([run(0.4, 1.0, 1.0), run(0.4, 1.0, 3.0, "large")]).missing == 0


def test_a_comparison_tells_of_it():
    a = [run(0.4, 2 / epochs**0.3, epochs, run=f"a{epochs}") for epochs in (1.0, 2.0, 4.0, 8.0)]
    b = [dataclasses.replace(point, family="ViT", run=f"b{point.run}") for point in a]
    short = [dataclasses.replace(point, model="large", run=f"c{point.run}", flops=3e9) for point in b[:1]]
    notes = compare([*a, *b, *short], "NFNet", "ViT", samples=100).notes
    assert any(note.startswith("ViT: 3 of 8 pairs of model and epochs have no run") for note in notes)
    assert not any(note.startswith("NFNet: ") and "pairs" in note for note in notes)
