"""Other queues beside digitq: the same images, the same network, as many worker processes.

`python -m benchmarks.queues [--only NAME] [--images N] [--rounds N]`, where
`digitq[worker,local]` and `benchmarks/queues/requirements.txt` are installed. What it needs it
starts itself, and stops it again. It prints the medians, as `digitq bench` does.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.queues.dramatiq_queue import measure_dramatiq
from benchmarks.queues.ray_data import measure_ray_data
from digitq.bench.measures import Bench, measure_concurrent, measure_queue
from digitq.bench.rounds import Rows, describe, run_rounds

Measure = Callable[[Bench], Rows]


def measure_warm_calls(bench: Bench) -> Rows:
    """`concurrent`, the second of two: mosec has had calls before it is measured as well."""
    measure_concurrent(bench)
    return measure_concurrent(bench)


def measure_mosec(bench: Bench) -> Rows:
    """Imported late: mosec takes this program's options for its own."""
    from benchmarks.queues.mosec_http import measure_mosec

    return measure_mosec(bench)


OURS: dict[str, Measure] = {"queue": measure_queue, "concurrent": measure_warm_calls}
OTHERS: dict[str, tuple[Measure, str]] = {  # and what of ours each is beside
    "dramatiq": (measure_dramatiq, "queue"),
    "ray": (measure_ray_data, "queue"),
    "mosec": (measure_mosec, "concurrent"),
}


def compare(rows: Rows) -> Rows:
    """Images a second of each; of the others, also the ratio to ours."""
    rates = {name: figures["images_per_second"] for name, figures in rows.items()}
    return {
        name: {"images_per_second": rate}
        | ({f"of_{OTHERS[name][1]}": rate / rates[OTHERS[name][1]]} if name in OTHERS else {})
        for name, rate in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=OTHERS, action="append", help="may be given again")
    parser.add_argument("--images", type=int, default=600_000, help="1/100 of them as calls")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    others = {name: OTHERS[name] for name in arguments.only or OTHERS}
    ours = dict.fromkeys(beside for _, beside in others.values())
    measures = [OURS[name] for name in ours] + [measure for measure, _ in others.values()]
    with Bench(arguments.images) as bench:
        rows = run_rounds(
            [partial(measure, bench) for measure in measures],
            arguments.rounds,
            lambda line: print(line, file=sys.stderr),
        )
    for name, figures in compare(rows).items():
        print(describe(name, figures))


if __name__ == "__main__":
    main()
