"""The errors that digitq raises."""


class DigitqError(Exception):
    """Base of all errors of digitq; its text says what is wrong and what to do.

    `quote` is a part of the text that is from a file, and is shown to nobody but who may read it.
    """

    def __init__(self, text: str = "", quote: str = "") -> None:
        super().__init__(text)
        self.quote = quote

    @property
    def for_others(self) -> str:
        """The text without the quote."""
        return str(self).replace(self.quote, "…") if self.quote else str(self)


class UsageError(DigitqError):
    """Raised when the input or an option is wrong; during a job, if an item is not an image."""


class UnknownJobError(UsageError):
    """Raised when Redis has no job with the given id, or no longer has it."""


class BrokerError(DigitqError):
    """Raised when Redis can't be reached or trusted, refuses the login, or is lost for good."""


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


class StoreError(DigitqError):
    """Raised when a store of objects, such as a bucket, fails, or can't be reached."""
