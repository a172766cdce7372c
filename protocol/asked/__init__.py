"""What a job reads: digits, numbers or forms, what is known of them, and the risk it takes."""

from digitq.protocol.errors import UsageError


class UnmetError(UsageError):
    """Raised if a job asks for what a worker does not have, such as other weights."""
