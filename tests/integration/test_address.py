"""The ledger and Celery find the same database, however its URL names it."""

import os
import tempfile

import pytest

from digitq.private.processes import Local
from digitq.private.run_folder import private_folder
from tests.servers import assert_both_find_it


@pytest.mark.parametrize("query", ["db=3", "virtual_host=3"])
def test_a_socket(query: str, redis_only: Local) -> None:
    for scheme in ("unix", "redis+socket"):
        assert_both_find_it(f"{scheme}://{redis_only.socket}?{query}")


@pytest.mark.parametrize(
    "name",
    [b"a%20b#c?d;e'f\"g \xc3\xa9{db}&h@i+j\\k", b"x" * 120, b"\xff"],
    ids=["odd", "long", "bytes"],
)
def test_a_private_redis_wherever_temporary_files_are(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_folder() as folder:  # pytest's own may have too long a path
        monkeypatch.setattr(tempfile, "tempdir", f"{folder}/{os.fsdecode(name)}")
        os.mkdir(tempfile.tempdir)
        with Local(workers=0) as local:
            assert_both_find_it(local.url.replace("db=0", "db=3"))
