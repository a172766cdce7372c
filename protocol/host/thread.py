"""A thread of one's own that makes calls, for which Python does not wait."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any

Calls = SimpleQueue["tuple[Future[Any], Callable[[], Any]] | None"]


class DaemonThread(Executor):
    """One thread that makes calls in turn. Unlike that of a `ThreadPoolExecutor`, it does not delay
    the end of the process, and lives until then even if the main thread ends earlier."""

    def __init__(self, name: str) -> None:
        self._calls: Calls = SimpleQueue()
        self._thread = Thread(target=make_calls, args=(self._calls,), name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self._calls.put((done, partial(function, *args, **options)))
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread after the calls that it has, and wait for that, unless it is this one."""
        self._calls.put(None)
        if wait and current_thread() is not self._thread:
            self._thread.join()


def make_calls(calls: Calls) -> None:
    while call := calls.get():
        done, make = call
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(make())
            except BaseException as error:
                done.set_exception(error)
        del call, done, make  # a thread that waits for the next call keeps nothing alive
