"""Other queues beside digitq: the same images, the same network, the same number of workers.

`python -m benchmarks.queues [--only NAME] [--images N] [--rounds N]`, in the root of a clone, needs
`digitq[worker,local]` and `benchmarks/queues/requirements.txt`. It starts all servers and workers
itself and stops them again. It prints the medians of the rounds.
"""

import argparse
from collections.abc import Callable
from functools import partial

from benchmarks import share_path
from benchmarks.deployment.measures import Bench, measure_concurrent, measure_queue
from benchmarks.queues.dramatiq_queue import measure_dramatiq
from benchmarks.queues.ray_data import measure_ray_data
from benchmarks.rounds import Rows, run_rounds, tabulate

Measure = Callable[[Bench], Rows]


def measure_warm_calls(bench: Bench) -> Rows:
    """The second of two `concurrent` runs: mosec also gets calls before it is measured."""
    measure_concurrent(bench)
    return measure_concurrent(bench)


def measure_mosec(bench: Bench) -> Rows:
    """The import is late because mosec reads this program's options as its own."""
    from benchmarks.queues.mosec_http import measure_mosec

    return measure_mosec(bench)


OURS: dict[str, Measure] = {"queue": measure_queue, "concurrent": measure_warm_calls}
OTHERS: dict[str, tuple[Measure, str]] = {  # and the row of digitq's that each is compared with
    "dramatiq": (measure_dramatiq, "queue"),
    "ray": (measure_ray_data, "queue"),
    "mosec": (measure_mosec, "concurrent"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queues", description=__doc__)
    parser.add_argument(
        "--only", choices=OTHERS, action="append", help="may be given several times"
    )
    parser.add_argument(
        "--images", type=int, default=600_000, help="single calls get a hundredth of them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    others = {name: OTHERS[name] for name in arguments.only or OTHERS}
    ours = dict.fromkeys(beside for _, beside in others.values())
    measures = [OURS[name] for name in ours] + [measure for measure, _ in others.values()]
    share_path()
    with Bench(arguments.images) as bench:
        rows = run_rounds(
            [partial(measure, bench) for measure in measures],
            arguments.rounds,
            {name: {f"of_{beside}": beside} for name, (_, beside) in others.items()},
        )
    print(tabulate(rows))


if __name__ == "__main__":
    main()
