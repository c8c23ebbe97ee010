"""The ceiling of given people agrees with that of the population they are drawn from, and knows who is who."""

from __future__ import annotations

import numpy as np
import pytest

from ospor_batch.synthetic.ceiling import RecipeLabel, Standard, ceiling_table
from ospor_batch.synthetic.ceiling_of_people import Labelled, OwnCeiling, own_ceilings
from ospor_batch.synthetic.labels import exams_of, matched
from ospor_batch.synthetic.population import Rates, center_plan, people

EVERYBODY = Rates(0, 0, 0, 0, is_referred_by_risk=False)


def labelled(center: str, n: int) -> list[Labelled]:
    found = []
    for person in people(center, range(1, n + 1), seed=5, night=1, rates=EVERYBODY, is_planted=False):
        exam = matched(exams_of(person))
        if exam is not None:
            found.append((person, exam))
    return found


def named(rows: list[OwnCeiling]) -> dict[tuple[str, str], OwnCeiling]:
    return {(row.metric, row.target): row for row in rows}


@pytest.mark.parametrize(("center", "standard", "target"), [("spine_clinic", "dxa_who", "tbs"), ("qct_train", "qct", "vbmd")])
def test_many_people_have_the_ceiling_of_their_population(center: str, standard: Standard, target: str) -> None:
    of = RecipeLabel("one", "ct", standard)
    population = ceiling_table([of], plans=[center_plan(center)], seed=1, is_referred_by_risk=False)
    own = named(own_ceilings(labelled(center, 900), image="ct", standard=standard, seed=1, draws=4))
    assert own.keys() == {(m, t) for m, t in population.select("metric", "target").rows()}
    for metric, of_what in (("pearson_r", target), ("auc", "osteoporosis")):
        stated = population.filter(bound="label_and_image_noise", metric=metric, target=of_what)["value"].item()
        assert own[metric, of_what].value == pytest.approx(stated, abs=0.04)


def test_noise_of_the_image_lowers_it_and_order_changes_nothing() -> None:
    people = [*labelled("screening", 60), *labelled("referral", 60)]
    film = named(own_ceilings(people, image="radiograph", standard="dxa_who", seed=1, draws=8))["auc", "osteoporosis"]
    assert film.exact is not None
    assert film.value is not None
    assert film.sd is not None
    assert film.value < film.exact
    assert film.sd > 0
    turned = people[::-1]
    exact = named(own_ceilings(turned, image="radiograph", standard="dxa_who", seed=1, draws=1))["auc", "osteoporosis"].exact
    assert exact == pytest.approx(film.exact)
    mixed = [
        (person, exam)
        for (person, _), (_, exam) in zip(people, np.roll(np.array(people, dtype=object), 7, axis=0), strict=True)
    ]
    lost = named(own_ceilings(mixed, image="radiograph", standard="dxa_who", seed=1, draws=1))["auc", "osteoporosis"].exact
    assert lost is not None
    assert lost < film.exact - 0.2  # labels of other people


def test_of_one_class_there_is_none() -> None:
    sick = [one for one in labelled("screening", 40) if one[1].is_osteoporosis]
    found = named(own_ceilings(sick, image="ct", standard="dxa_who", seed=1, draws=2))["auc", "osteoporosis"]
    assert (found.exact, found.value, found.sd) == (None, None, None)
    assert found.n_positive == found.n_people == len(sick)
    assert own_ceilings([], image="ct", standard="dxa_who", seed=1) == []
