"""Rounds, medians and ratios, without any clock."""

import pytest

from digitq.bench.measures import CONTENDERS, describe_latencies
from digitq.bench.rounds import (
    BENCHMARKS,
    RIVALS,
    Rows,
    rotate,
    run_rounds,
    tabulate,
    take_medians,
    with_ratios,
)
from tests.unit.test_cli import check


def test_each_contender_goes_first_in_its_turn() -> None:
    orders = [rotate("abc", number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_the_median_is_of_the_rounds() -> None:
    samples = [{"median_ms": value, "p99_ms": 10 * value} for value in (9.0, 1.0, 2.0)]
    assert take_medians(samples) == {"median_ms": 2.0, "p99_ms": 20.0}


def test_contenders_take_turns_and_rows_stay_in_order() -> None:
    rates = {"torch": iter([100.0, 400.0, 200.0]), "queue": iter([50.0, 100.0, 150.0])}
    measured: list[str] = []

    def measure(name: str) -> Rows:
        measured.append(name)
        return {name: {"images_per_second": next(rates[name])}}

    rows = run_rounds([lambda: measure("torch"), lambda: measure("queue")], 3, lambda line: None)
    assert measured == ["torch", "queue", "queue", "torch", "torch", "queue"]
    assert rows == {
        "torch": {"images_per_second": 200.0, "of_torch": 1.0},
        "queue": {"images_per_second": 100.0, "of_torch": 0.5},
    }
    assert list(rows) == ["torch", "queue"]


def test_a_rival_that_was_not_measured_gives_no_ratio() -> None:
    assert with_ratios({"queue": {"images_per_second": 5.0}}) == {
        "queue": {"images_per_second": 5.0}
    }


def test_latencies_are_compared_by_their_medians() -> None:
    rows = with_ratios(
        {
            "latency": {"median_ms": 3.0, "p99_ms": 90.0},
            "latency (celery)": {"median_ms": 6.0, "p99_ms": 9.0},
        }
    )
    assert rows["latency"] == {"median_ms": 3.0, "p99_ms": 90.0, "of_celery": 0.5}


def test_the_99th_percentile_sees_the_slow_ones() -> None:
    figures = describe_latencies([1.0] * 95 + [50.0] * 5)
    assert figures == {"median_ms": 1.0, "p99_ms": pytest.approx(50.0)}


def test_the_table_has_a_line_for_each_row() -> None:
    rows = with_ratios(
        {
            "torch": {"images_per_second": 400_000.0},
            "queue": {"images_per_second": 190_261.0, "producer_mb": 314.2},
            "latency": {"median_ms": 4.25, "p99_ms": 9.0},
        }
    )
    assert [line.split() for line in tabulate(rows).splitlines()] == [
        ["images/s", "of", "torch"],
        ["torch", "400,000", "1.00"],
        ["queue", "190,261", "0.476", "314", "producer", "MB"],
        ["latency", "4.25", "median", "ms,", "9.00", "p99", "ms"],
    ]


def test_every_benchmark_has_contenders() -> None:
    assert tuple(CONTENDERS) == BENCHMARKS


def test_ratios_are_to_rows_that_exist() -> None:
    rivals = {rival for ratios in RIVALS.values() for rival in ratios.values()}
    assert rivals <= {*RIVALS, "latency (celery)", "scale (one worker)"}


def test_an_unknown_benchmark_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ", ".join(f"'{name}'" for name in BENCHMARKS)
    check(capsys, 2, f"is not one of {names}", "bench", "--only", "gpu")
