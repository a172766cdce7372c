"""The errors digitq raises.

DigitqError
 ├─ UsageError           the input or an option is wrong; nothing was done
 │   └─ UnknownJobError  no job of that id is in Redis, or is any longer
 ├─ BrokerError          Redis could not be reached, or was lost for good
 ├─ JobCancelledError    the job was cancelled while its results were awaited
 └─ OutputError          the result file can't be written
"""


class DigitqError(Exception):
    """Base of all errors of digitq; its text says what is wrong and what to do."""


class UsageError(DigitqError):
    """Raised when the input or an option is wrong, before anything was done."""


class BrokerError(DigitqError):
    """Raised when Redis can't be reached, refuses the password, or is lost for good."""


class UnknownJobError(UsageError):
    """Raised when no job of the given id is in Redis, or is no longer."""


class JobCancelledError(DigitqError):
    """Raised when a job is cancelled while its results are awaited."""


class OutputError(DigitqError):
    """Raised when the result file can't be written."""
