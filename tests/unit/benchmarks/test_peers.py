"""What the comparison with other tools counts as a fault."""

from benchmarks.peers import Faults, faults


def test_each_kind_of_fault_is_counted() -> None:
    true = [("same", 1), ("changed", 3), ("new", 1), ("late", 2)]
    held = [("same", 1), ("changed", 2), ("changed", 3), ("late", 1), ("deleted", 1)]
    former = [("changed", 1), ("changed", 2)]
    assert faults(held, kept=held, true=true, former=former) == Faults(
        missing=1, outdated=1, deleted=1, twice=1, former_lost=1
    )


def test_a_faithful_copy_with_its_history_has_no_faults() -> None:
    true = [("same", 1), ("changed", 2)]
    kept = [*true, ("changed", 1)]
    assert faults(true, kept, true, former=[("changed", 1)]) == Faults(0, 0, 0, 0, 0)
