"""A private worker: `python -m digitq.private.start_worker APP NAME LEVEL PROCESSES [EVENTS]`.

Celery's own command line would import all of its commands, among them Flower and a shell, which
takes a tenth of the time of torch.
"""

import sys

from celery.app.utils import find_app
from celery.utils.nodenames import host_format


def main(app: str, name: str, level: str, processes: str, events: str = "") -> None:
    """Run a worker of the app, as `celery -A APP worker` does."""
    worker = find_app(app).Worker(
        hostname=host_format(name),
        loglevel=level,
        concurrency=int(processes),
        task_events=bool(events),
    )
    worker.start()
    sys.exit(worker.exitcode)


if __name__ == "__main__":
    main(*sys.argv[1:])
