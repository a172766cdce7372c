"""Other programs beside digitq: the same images, the same network, as many workers or threads.

`python -m benchmarks.rivals [--only NAME] [--images N] [--rounds N] [--json]`, in the root of a
clone of digitq, where `digitq[worker,local]` is installed. It starts what it needs and stops it
again. The programs take turns, another one first in each round; it prints the medians.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

from benchmarks import share_path
from benchmarks.deployment.measures import (
    measure_concurrent,
    measure_coroutines,
    measure_parquet,
    measure_queue,
)
from benchmarks.rivals.measures import (
    RIVAL_RATIOS,
    Rivals,
    measure_celery,
    measure_celery_batches,
    measure_dataloader,
    measure_folder,
    measure_image_folder,
    measure_latencies,
    measure_torch,
)
from benchmarks.rounds import Rows, run_rounds, tabulate
from digitq.terminal import echo_err

RIVAL_MEASURES: dict[str, tuple[Callable[[Rivals], Rows], ...]] = {
    "torch": (measure_torch,),
    "queue": (measure_queue, measure_parquet),
    "celery": (measure_celery, measure_celery_batches),
    "dataloader": (measure_dataloader,),
    "folder": (measure_folder, measure_image_folder),
    "latency": (measure_latencies,),
    "concurrent": (measure_concurrent, measure_coroutines),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument(
        "--only", choices=RIVAL_MEASURES, action="append", help="may be given again"
    )
    parser.add_argument("--images", type=int, default=600_000, help="slower programs take fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    share_path()
    with Rivals(options.images) as bench:
        echo_err(bench.describe())
        measures = [
            partial(measure, bench)
            for name in RIVAL_MEASURES
            if name in (options.only or RIVAL_MEASURES)
            for measure in RIVAL_MEASURES[name]
        ]
        rows = run_rounds(measures, options.rounds, RIVAL_RATIOS)
    print(json.dumps(rows, indent=2) if options.json else tabulate(rows))


if __name__ == "__main__":
    main()
