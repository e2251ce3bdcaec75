import re
from pathlib import Path

import pytest

from lifecycle import ALLOWED, IllegalTransition, Seed, State

LIFECYCLE_GO = Path(__file__).resolve().parents[2] / "lifecycle.go"


def test_the_table_is_that_of_lifecycle_go():
    source = LIFECYCLE_GO.read_text()
    names = re.findall(r'"([A-Z_]+)"', source.split("stateNames = ")[1].split("}")[0])
    assert names == [state.name for state in State]

    by_go_name = {state.name.replace("_", "").lower(): state for state in State}
    table = source.split("var allowed = ")[1].split("\n}")[0] + "\n"
    found = {state: () for state in State}
    for row in re.findall(r"(\w+):\s+(1.*),\n", table):
        found[by_go_name[row[0].lower()]] = tuple(by_go_name[to.lower()] for to in re.findall(r"<<\s*(\w+)", row[1]))
    assert found == ALLOWED


@pytest.mark.parametrize("start", State)
@pytest.mark.parametrize("end", State)
def test_only_allowed_transitions(start: State, end: State):
    seed = Seed("enc.0", 7, start)
    if end in ALLOWED[start]:
        change = seed.become(end, 30, "because", {"loss": 0.5})
        assert (change.from_state, change.to_state, change.sequence) == (start, end, 0)
        assert seed.state == end
        return
    with pytest.raises(IllegalTransition, match=f"enc.0 seed 7: {start.name} to {end.name}"):
        seed.become(end, 30, "because", {"loss": 0.5})
    assert seed.state == start


def test_a_transition_needs_evidence():
    seed = Seed("enc.0", 7)
    with pytest.raises(ValueError, match="without evidence"):
        seed.become(State.GERMINATED, 30, "because", {})
    assert seed.state == State.DORMANT


def test_a_state_begins_with_nothing_measured():
    seed = Seed("enc.0", 7, State.TRAINING, measured=[0.5, 0.4])
    assert seed.become(State.GRAFTING, 1, "because", {"loss": 0.4}).sequence == 0
    assert seed.measured == []
    assert seed.become(State.STABILIZATION, 2, "because", {"loss": 0.4}).sequence == 1
