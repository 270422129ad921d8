"""Changed files decode, or are refused in one line: some seconds of what `fuzz_long.py` does for hours."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from fuzz_judge import REFUSED, TAKEN, Fault, judge
from fuzz_sections import put_together, take_apart
from fuzz_specimens import chosen, specimens
from fuzzing import CHANGES, FRAMING, NEEDED, changed_file

FILES = 5
"""Of each kind of change."""

MAX_SAMPLES = 1 << 14
SECONDS = 60.0


def tiny() -> dict[str, bytes]:
    """Return the specimens that are decoded fast; other tests decode the golden files."""
    return {name: data for name, data in specimens().items() if not name.startswith("v1")}


def test_specimens_have_everything_and_are_taken(tmp_path: Path) -> None:
    streams = 0
    kinds = set()
    for number, data in enumerate(tiny().values()):
        sections = take_apart(data)
        kinds |= {each.kind for each in sections if each.payload or each.kind == "E"}
        streams = max(streams, sum(each.kind == "S" for each in sections))
        # Put together again with headers that are packed or not.
        assert judge(put_together(sections, Random(number)), tmp_path, MAX_SAMPLES, SECONDS) == TAKEN
    assert kinds == set("ISMCRE") and streams == 2


def specimen_for(kind: str, random: Random) -> bytes:
    """Return a tiny specimen that has what a kind of change is of."""
    needed = NEEDED.get(kind, "S")
    suitable = {name: data for name, data in tiny().items() if any(each.kind == needed for each in take_apart(data))}
    return suitable[chosen(suitable, random)]


@pytest.mark.parametrize("kind", [*CHANGES, FRAMING])
def test_changed_files_are_decoded_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    faults = []
    for seed in range(FILES):
        random = Random(f"{kind} {seed}")
        first, data = changed_file(specimen_for(kind, random), random, kind)
        assert first == kind
        try:
            outcomes[judge(data, tmp_path, MAX_SAMPLES, SECONDS)] += 1
        except Fault as fault:
            faults.append(f"{kind} {seed}: {fault}")
    assert not faults
    assert outcomes[TAKEN] + outcomes[REFUSED] == FILES


def test_the_same_seed_makes_the_same_file() -> None:
    data = specimens()["climate with a bound"]
    for kind in (*CHANGES, FRAMING):
        first, again = (changed_file(data, Random(7), kind)[1] for _ in range(2))
        assert first == again


def test_made_up_symbols_are_decoded(tmp_path: Path) -> None:
    """Or the kinds of change that make them would be refused for their coding, and say nothing of what they mean."""
    for kind in ("symbols", "residual symbols"):
        outcomes: Counter[str] = Counter()
        for seed in range(12):
            random = Random(seed)
            sections = CHANGES[kind](take_apart(specimens()["picture with a bound"]), random)
            outcomes[judge(put_together(sections, random), tmp_path, MAX_SAMPLES, SECONDS)] += 1
        assert outcomes[TAKEN] >= 3, (kind, outcomes)
