"""Random damage is found and put where it is: a small share of what ``make mutate`` tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .mutations import KINDS, Mutation, Subject, Ward, missed

SEED = 2026
PARTS = 8
PER_PART = 25


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return Ward(tmp_path_factory.mktemp("ward"), SEED)


@pytest.mark.parametrize("part", range(PARTS))
def test_random_damage_is_found_where_it_is(ward: Ward, part: int) -> None:
    trials = {number: ward.trial(number) for number in range(part * PER_PART, (part + 1) * PER_PART)}
    problems = [
        f"tests/soak/mutate_store.py --seed {SEED} --only {number}: {what}: {problem}"
        for number, (what, problem) in trials.items()
        if problem
    ]
    assert not problems


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_damage_is_tried(ward: Ward, kind: Callable[[Subject], Mutation]) -> None:
    for subject, what, problem in ward.trials_of(kind, seed=SEED):
        assert not problem, f"{what}: {problem}"
        assert missed(subject.path, Mutation("none", {}, ("nothing",))).startswith("not found"), f"{what}: not healed"
