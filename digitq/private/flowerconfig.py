"""Flower's configuration, which Flower runs as it starts.

In its list of tasks, `args` is the job and the chunk, `result` how far the job is and the speed.
"""

from typing import Any

from flower.views.monitor import Metrics
from tornado.web import authenticated

from digitq.protocol.app import app

app.set_default()  # Flower's API asks this app for results
# Workers send lost images again; Flower's Redis user may not, and Flower would lose its connection
app.conf.broker_transport_options["ack_emulation"] = False
tasks_columns = "state,args,result,runtime,worker,received"
max_tasks = 10_000  # tasks that Flower remembers, which bounds its memory

# Flower asks for its password, if it has one, on every page but this
setattr(Metrics, "get", authenticated(Metrics.get))  # noqa: B010 (mypy refuses to assign it)


def format_task(task: Any) -> Any:
    """Remove the quotes that Celery puts around a result that is a text."""
    task.result = task.result.strip("'") if task.result else task.result
    return task
