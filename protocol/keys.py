"""The names of the keys, queues and channels in Redis."""

import re

ACTIVE = "digitq:active"
JOBS = "digitq:jobs"
WATERMARK = "digitq:watermark"
ENDED = "digitq:ended"
SWEEPING = "digitq:sweeping"  # when jobs were swept last, and which come next
COUNTERS = "digitq:counters"  # what workers have counted of all jobs; it outlives the jobs
LIVING = "digitq:workers"  # the names of the workers that live
WORKER = "digitq:worker:"  # with a worker's name: the key of its heartbeat
IMAGES_QUEUE = "digitq-images"  # the Celery queue of images that programs without digitq send
TAKEN = "digitq-taken"  # a list of messages from there that a worker is about to book
BOOKED_QUEUE = "digitq-booked"  # the Celery queue of these images once the ledger has them
ANSWER = "celery-task-meta-"  # with a task's id: the key and the channel of Celery's result
DEFAULT_QUEUE = "celery"  # Celery's queue for messages that name none, which programs share
PRIORITIES = (0, 3, 6, 9)  # kombu keeps a list for each of its priorities
QUEUE = "digitq"  # the Celery queue, which kombu keeps as a list of this name
CALLS_PRIORITY = -1  # the priority of single calls; kombu takes the lowest number first
PRIORITY_MARK = "\x06\x16"  # stands before the priority in kombu's name for a list
CALLS_QUEUE = f"{QUEUE}{PRIORITY_MARK}{CALLS_PRIORITY}"  # kombu's name for its list
JOB = "digitq:job:"  # with a job's id: the key of its record
NETWORK = "digitq:network:"  # with its name: the key of a network that jobs have brought
KNOWN = "digitq:known:"  # with its name: the key of what is known of the numbers of single calls
IS_ID = re.compile(r"[\w-]+", re.ASCII).fullmatch  # excludes `:`, so that no id names another key
TASK_EVENTS = "/{}.celeryev/task."  # with a database's number: begins the channels of task events


def lists_of(queue: str) -> list[str]:
    """The lists in Redis in which kombu keeps a queue, one for each priority."""
    others = CALLS_PRIORITY, *PRIORITIES[1:]
    return [queue, *(f"{queue}{PRIORITY_MARK}{priority}" for priority in others)]


def record_key(job_id: str) -> str:
    """The key of a job's record; the job's other keys are this with a suffix."""
    return JOB + job_id


TYPES = {  # the type of each key that jobs share, as Redis names it
    **dict.fromkeys((ACTIVE, *map("_kombu.binding.{}".format, (QUEUE, BOOKED_QUEUE))), "set"),
    **dict.fromkeys((JOBS, LIVING), "zset"),
    **dict.fromkeys((WATERMARK, f"{WATERMARK}:images", SWEEPING), "string"),
    **dict.fromkeys((ENDED, TAKEN, *lists_of(QUEUE)), "list"),
    **dict.fromkeys((*lists_of(BOOKED_QUEUE), *lists_of(IMAGES_QUEUE)), "list"),
    COUNTERS: "hash",
}
