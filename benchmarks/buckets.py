"""How fast are the images of a bucket classified?

`python -m benchmarks.buckets IMAGE` starts a server of one bucket that answers each request after
20 ms, and has the image under 20,000 names. It prints how many objects a second are read, and how
many are classified by a private Redis and one worker, beside the processor time of an object in
the process that reads it.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import digitq
from digitq import Client
from digitq.private.processes import Local
from digitq.producer.chunking import cut_chunks
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.opening import open_sources
from digitq.protocol.asked.reading import Reading

OBJECTS = 20_000
KEYS = 1_000  # a listing comes in pages of this many
DELAY_SECONDS = 0.02
ROUNDS = 3
FOLDER = "s3://bucket/images"
KEY = "<Contents><Key>{}{:05}.png</Key><Size>{}</Size></Contents>"
PAGE = "<ListBucketResult><KeyCount>{}</KeyCount><IsTruncated>{}</IsTruncated>{}</ListBucketResult>"


class Answers(asyncio.Protocol):
    """The server's side of a connection."""

    content = b""  # the bytes of each object

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            request, _, self.received = self.received.partition(b"\r\n\r\n")
            method, target, *_ = request.decode().split(" ")
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self.answer, method, target)

    def answer(self, method: str, target: str) -> None:
        url = urlsplit(target)
        content, status = self.content, "200 OK"
        if not url.path.endswith(".png"):
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            content = self.list_keys(query).encode()
            status = "200 OK" if method == "GET" else "404 Not Found"  # a folder is no object
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nETag: x\r\n\r\n".encode()
        self.transport.write(head + content if method == "GET" else head)

    def list_keys(self, query: dict[str, str]) -> str:
        begin = int(query.get("continuation-token", 0))
        end = min(begin + int(query.get("max-keys", KEYS)), OBJECTS)
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < OBJECTS else ""
        prefix, size = query.get("prefix", ""), len(self.content)
        keys = "".join(KEY.format(prefix, number, size) for number in range(begin, end))
        return PAGE.format(end - begin, str(end < OBJECTS).lower(), more + keys)


async def serve(path: str) -> None:
    Answers.content = Path(path).read_bytes()
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(path: str) -> None:
    command = [sys.executable, "-m", "benchmarks.buckets", "--serve", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "any"
        os.environ["AWS_REGION"] = "us-east-1"
        try:
            with Local(workers=1) as local, Client(local.url) as client:
                local.wait_until_ready(1)
                list(client.submit(path).results())  # warms up
                for _ in range(ROUNDS):
                    chunks = cut_chunks(read_source(open_sources(FOLDER), Reading("cnn")), "cnn")
                    measure("read", (chunk.batch.num_rows for chunk in chunks))
                    results = client.submit(FOLDER, digitq.digits("cnn")).results()
                    measure("classify", (batch.num_rows for batch in results))
        finally:
            server.kill()


def measure(name: str, rows: Iterable[int]) -> None:
    """Print how many objects a second come, and what each costs this process."""
    begun, spent = time.perf_counter(), time.process_time()
    count = sum(rows)
    rate, cost = count / (time.perf_counter() - begun), (time.process_time() - spent) / count
    print(f"{name:10}{rate:8,.0f} objects/s{1e3 * cost:8.2f} ms of this process", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main(sys.argv[1])
