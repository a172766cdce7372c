"""What Flower shows of digitq; `celery -A protocol flower --conf=…/flowerconfig.py`.

`args` says which job and chunk and how many images, `result` how many failed and how fast.
"""

from typing import Any

tasks_columns = "state,args,result,runtime,worker,received"
max_tasks = 10_000  # bounds Flower's memory


def format_task(task: Any) -> Any:
    """A task as a row: its result without the quotes that Celery puts around a text."""
    task.result = task.result.strip("'") if task.result else task.result
    return task
