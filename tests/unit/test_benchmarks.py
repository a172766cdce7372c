"""Rounds, medians and ratios, without any clock."""

import subprocess
import sys

import pytest

from benchmarks.deployment.__main__ import bench
from benchmarks.deployment.measures import MEASURES, RATIOS, describe_latencies
from benchmarks.rivals.__main__ import RIVAL_MEASURES
from benchmarks.rivals.measures import RIVAL_RATIOS
from benchmarks.rounds import Ratios, Rows, rotate, run_rounds, tabulate, with_ratios
from digitq.cli import main
from digitq.worker.models.card import WEIGHTS_FOLDER

WEIGHTS = str(WEIGHTS_FOLDER)


def test_each_measurement_goes_first_in_its_turn() -> None:
    orders = [rotate("abc", number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_the_median_is_of_the_rounds() -> None:
    samples = iter([{"median_ms": value, "p99_ms": 10 * value} for value in (9.0, 1.0, 2.0)])
    rows = run_rounds([lambda: {"latency": next(samples)}], 3, {})
    assert rows == {"latency": {"median_ms": 2.0, "p99_ms": 20.0}}


def test_measurements_take_turns_and_rows_stay_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates = {"network": iter([100.0, 400.0, 200.0]), "queue": iter([50.0, 100.0, 150.0])}
    measured: list[str] = []

    def measure(name: str) -> Rows:
        measured.append(name)
        return {name: {"images_per_second": next(rates[name])}}

    both = [lambda: measure("network"), lambda: measure("queue")]
    rows = run_rounds(both, 3, RATIOS)
    assert measured == ["network", "queue", "queue", "network", "network", "queue"]
    assert rows == {
        "network": {"images_per_second": 200.0},
        "queue": {"images_per_second": 100.0, "of_network": 0.5},
    }
    assert list(rows) == ["network", "queue"]
    assert capsys.readouterr().err.splitlines()[:2] == [
        "round 1 of 3: network: 100 images/s",
        "round 1 of 3: queue: 50.0 images/s",
    ]


def test_a_row_that_was_not_measured_gives_no_ratio() -> None:
    rows = {"queue": {"images_per_second": 5.0}}
    assert with_ratios(rows, RATIOS) == rows


def test_latencies_are_compared_by_their_medians() -> None:
    rows = with_ratios(
        {
            "latency": {"median_ms": 3.0, "p99_ms": 90.0},
            "latency (celery)": {"median_ms": 6.0, "p99_ms": 9.0},
        },
        RIVAL_RATIOS,
    )
    assert rows["latency"] == {"median_ms": 3.0, "p99_ms": 90.0, "of_celery": 0.5}


def test_the_99th_percentile_sees_the_slow_ones() -> None:
    figures = describe_latencies([1.0] * 95 + [50.0] * 5)
    assert figures == {"median_ms": 1.0, "p99_ms": pytest.approx(50.0)}


def test_the_table_has_a_line_for_each_row() -> None:
    rows = with_ratios(
        {
            "network": {"images_per_second": 400_000.0},
            "queue": {"images_per_second": 190_261.0, "producer_mb": 314.2},
            "latency": {"median_ms": 4.25, "p99_ms": 9.0},
        },
        RATIOS,
    )
    assert tabulate(rows).splitlines() == [
        "                          images/s",
        "network                    400,000",
        "queue                      190,261  314 producer MB, 0.476 of network",
        "latency                             4.25 median ms, 9.00 p99 ms",
    ]


@pytest.mark.parametrize(
    ("ratios", "names", "seconds"),
    [
        (RATIOS, {*MEASURES}, {"scale (one worker)", "numbers (network)"}),
        (
            RIVAL_RATIOS,
            {*RIVAL_MEASURES},
            {"celery (batches)", "folder (ImageFolder)", "latency (celery)"},
        ),
    ],
)
def test_ratios_are_to_rows_that_exist(ratios: Ratios, names: set[str], seconds: set[str]) -> None:
    others = {other for of_row in ratios.values() for other in of_row.values()}
    assert others <= names | seconds
    assert {row.partition(" (")[0] for row in ratios} <= names


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (f"is not one of {', '.join(map(repr, MEASURES))}", ["--only", "gpu"]),
        ("name one URL, of one Redis", ["--broker", "redis://h/0 redis://i/0"]),
        ("torch is not installed", ["--broker", "redis://h/0", "--only", "network"]),
        ("torch is not installed", ["--rounds", "1"]),
        ("does not go with --broker", ["--broker", "redis://h/0", "--weights", WEIGHTS]),
    ],
)
def test_what_the_load_test_refuses(
    message: str,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network alone needs torch even with a broker."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as ended:
        main(options, command=bench)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err.splitlines()[-1] and "Traceback" not in err


def test_the_process_that_measures_plain_celery_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import benchmarks.rivals.__main__"
    subprocess.run([sys.executable, "-c", code], check=True)
