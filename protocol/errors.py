"""The errors digitq raises.

DigitqError
 ├─ UsageError           the input or an option is wrong
 │   └─ UnknownJobError  Redis does not know this job, or no longer does
 ├─ BrokerError          Redis could not be reached, or was lost for good
 ├─ JobCancelledError    the job was cancelled while it was fed or its results were awaited
 ├─ JobAbandonedError    the job can't become whole: whoever submitted it is gone
 └─ OutputError          the result file can't be written
"""


class DigitqError(Exception):
    """Base of all errors of digitq; its text says what is wrong and what to do."""


class UsageError(DigitqError):
    """Raised when the input or an option is wrong: as a rule before anything is done, and in the
    midst of a job where only then an image of its source turns out to be none."""


class BrokerError(DigitqError):
    """Raised when Redis can't be reached, refuses the password, or is lost for good."""


class UnknownJobError(UsageError):
    """Raised when no job of the given id is in Redis, or is no longer."""


class JobCancelledError(DigitqError):
    """Raised when a job is cancelled while it is fed or its results are awaited."""


class JobAbandonedError(DigitqError):
    """Raised when a job's submitter is gone, before all of it was in Redis."""


class OutputError(DigitqError):
    """Raised when the result file can't be written."""
