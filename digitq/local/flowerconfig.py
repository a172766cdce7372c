"""Flower's configuration: `args` is the job and the chunk, `result` the failures and the speed."""

from typing import Any

from protocol.celery import app

app.set_default()  # Flower's API asks this app for results
tasks_columns = "state,args,result,runtime,worker,received"
max_tasks = 10_000  # tasks that Flower remembers, which bounds its memory


def format_task(task: Any) -> Any:
    """Remove the quotes that Celery puts around a result that is a text."""
    task.result = task.result.strip("'") if task.result else task.result
    return task
