"""Several Redis that share the jobs, or one. If one of them is lost, the others still answer."""

from collections.abc import Callable
from typing import TypeVar

from protocol.broker.address import split_urls
from protocol.broker.connection import connect
from protocol.errors import BrokerError
from protocol.ledger import Ledger

Reply = TypeVar("Reply")


class Brokers:
    """The Redis that are named by URLs with spaces between them."""

    def __init__(self, urls: str, timeout_seconds: float | None = None) -> None:
        """Raises `UsageError` if a URL is not of Redis."""
        self.urls = split_urls(urls)
        self.lost: dict[str, BrokerError] = {}  # why each URL that is lost gives no reply
        self._timeout_seconds = timeout_seconds

    def ask(self, question: Callable[[Ledger], Reply]) -> dict[str, Reply]:
        """The replies by URL, without those of the lost ones: nothing is retried."""
        replies, lost = dict[str, Reply](), dict[str, BrokerError]()
        for url in self.urls:
            try:
                with connect(url, timeout_seconds=self._timeout_seconds) as redis:
                    replies[url] = question(Ledger(redis))
            except BrokerError as error:
                lost[url] = error
        self.lost = lost
        return replies

    def raise_if_lost(self) -> None:
        """Raises `BrokerError` if one was lost when they were asked last."""
        for error in self.lost.values():
            raise error
