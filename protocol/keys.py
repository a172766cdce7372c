"""The names of the keys, queues and channels in Redis."""

import re

ACTIVE = "digitq:active"
JOBS = "digitq:jobs"
WATERMARK = "digitq:watermark"
ENDED = "digitq:ended"
SWEEPING = "digitq:sweeping"  # when jobs were swept last, and which come next
COUNTERS = "digitq:counters"  # of all jobs there ever were
LIVING = "digitq:workers"  # those that live
WORKER = "digitq:worker:"  # a worker's heartbeat is in the key of this name and the worker's
IMAGES_QUEUE = "digitq-images"  # the Celery queue of images that programs without digitq send
UNACKED = "digitq:unacked"  # those of them that workers have taken and not answered
PRIORITIES = (0, 3, 6, 9)  # kombu's; it keeps a list for each
QUEUE = "digitq"  # the Celery queue, which kombu keeps as a list of this name
CALLS_PRIORITY = -1  # the priority of single calls; kombu takes the lowest number first
CALLS_QUEUE = f"{QUEUE}\x06\x16{CALLS_PRIORITY}"  # kombu's name for the list of that priority
JOB = "digitq:job:"  # a job's record is in the key of this name and the job's id
KNOWN = "digitq:known:"  # with its name: the key of what is known of the numbers of single calls
IS_ID = re.compile(r"[\w-]+", re.ASCII).fullmatch  # excludes `:`, so that no id names another key
TASK_EVENTS = "/{}.celeryev/task."  # so Celery's channels begin in the database of this number


def record_key(job_id: str) -> str:
    """The key of a job's record; the job's other keys are this with a suffix."""
    return JOB + job_id
