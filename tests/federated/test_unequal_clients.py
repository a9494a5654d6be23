"""The matrix of methods and kinds of clients that the chapter draws: how it is made, and what is recorded."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECORD = BENCHMARKS / "results" / "unequal.json"
METHODS = ("FedAvg", "FedProx", "SCAFFOLD", "FedNova", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad")
KINDS = ("nothing", "labels", "features", "amounts", "labels and amounts")

# Two ladders, scores with a peak on them, and the places that were asked for.
CLIMB = """
from unequal import climb
for peak in ((2, 3), (8, 9), (16, 0), (1, 3)):
    asked = []
    def score(setting):
        asked.append(setting)
        return -abs(setting[0] - peak[0]) - abs(setting[1] - peak[1])
    found, tries = climb(score, ((1, 2, 4, 8, 16), (0, 3, 9)), (2, 3))
    assert found == peak, (found, peak)
    assert tries == len(asked) == len(set(asked)), asked
print("done")
"""


def run(*arguments):
    """Return what Python prints; in a process of its own, since the benchmarks pin threads for good."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=BENCHMARKS, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_climbing_finds_the_peak_and_tries_nothing_twice():
    assert run("-c", CLIMB) == "done\n"


def test_the_quick_run_measures_and_records_nothing():
    before = RECORD.read_bytes()
    assert "SCAFFOLD" in run("unequal.py", "quick")
    assert RECORD.read_bytes() == before


def test_every_method_is_recorded_for_every_kind_and_no_winner_lies_at_the_end_of_what_was_tried():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = record["rows"]
    assert {"Python", "numpy"} <= set(record["versions"])
    assert sorted((r["clients differ in"], r["method"]) for r in rows) == sorted(
        (kind, method) for kind in KINDS for method in METHODS
    )
    for row in rows:
        assert not any(row["at an end"]), row
        assert row["tries"] >= 3
        assert len(row["accuracy"]) == len(row["rounds"]) >= 3
        assert all(0.1 < level < 1 for level in row["accuracy"])
