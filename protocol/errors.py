"""The errors that digitq raises.

DigitqError
 ├─ UsageError           the input or an option is wrong
 │   └─ UnknownJobError  Redis does not know this job, or no longer does
 ├─ BrokerError          Redis can't be reached, or was lost for good
 ├─ JobCancelledError    the job was cancelled
 ├─ JobFailedError       workers gave up on the job
 ├─ JobAbandonedError    the job can't be completed: its submitter is gone
 ├─ ResultsExpiredError  Redis no longer keeps the results of the job
 └─ OutputError          the result file can't be written
"""


class DigitqError(Exception):
    """Base of all errors of digitq; its text says what is wrong and what to do."""


class UsageError(DigitqError):
    """Raised when the input or an option is wrong.

    Most are raised before anything is done. One is raised during a job when an item of its source
    turns out not to be an image.
    """


class BrokerError(DigitqError):
    """Raised when Redis can't be reached, refuses the login, or is lost for good."""


class UnknownJobError(UsageError):
    """Raised when Redis has no job with the given id, or no longer has it."""


class JobCancelledError(DigitqError):
    """Raised when a job was cancelled while it was fed or its results were awaited."""


class JobFailedError(DigitqError):
    """Raised when workers gave up on a job: its text says why."""


class JobAbandonedError(DigitqError):
    """Raised when the submitter of a job is gone and did not store all of it."""


class ResultsExpiredError(DigitqError):
    """Raised when Redis no longer keeps the results of a job."""


class OutputError(DigitqError):
    """Raised when the result file can't be written."""
