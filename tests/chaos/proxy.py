"""A proxy before Redis that cuts, delays, halves and swallows what passes, when told to."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 1 << 16


class Proxy:
    """Passes connections to one Unix socket on to another, until `close`."""

    def __init__(self, listens: Path, behind: Path) -> None:
        self.delay_seconds = 0.0  # of every block, either way
        self._swallowed: set[asyncio.StreamWriter] = set()
        self.halves = (
            0  # so many blocks are cut in two: the second half is lost, with its connection
        )
        self._listens, self._behind = listens, behind
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()

    def cut(self) -> None:
        """Close all connections, wherever they are."""
        self._loop.call_soon_threadsafe(self._cut)

    def swallow(self) -> None:
        """Let the connections there are stand, and nothing more come through; new ones are well."""
        self._loop.call_soon_threadsafe(lambda: self._swallowed.update(self._writers))

    def close(self) -> None:
        """End the proxy, with its connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._connected, self._listens)
        )
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            answers, requests = await asyncio.open_unix_connection(self._behind)
            await asyncio.gather(self._pass(reader, requests), self._pass(answers, writer))
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while block := await reader.read(BLOCK_BYTES):
                if writer in self._swallowed:
                    continue
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                whole = self.halves == 0
                self.halves = max(0, self.halves - 1)
                writer.write(block if whole else block[: len(block) // 2])
                await writer.drain()
                if not whole:
                    return
        finally:
            self._writers.discard(writer)
            self._swallowed.discard(writer)
            writer.close()
