"""Names of people: from a job, in which they are not, to the page on which they are."""

import re
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect

from digitq.private.processes import Local
from digitq.protocol.broker.connection import connect
from tests.integration.test_commands import Ask, ask  # noqa: F401 (a fixture)
from tests.integration.test_forms import scans  # noqa: F401 (a fixture)
from tests.integration.test_report import browser, page  # noqa: F401 (fixtures)


def test_names_are_beside_numbers_but_not_in_redis(
    local: Local,
    scans: Path,  # noqa: F811
    tmp_path: Path,
    ask: Ask,  # noqa: F811
    page: Page,  # noqa: F811
) -> None:
    folder = shutil.copytree(scans, tmp_path / "scans")
    (folder / "class.csv").write_text("id,name\n31275,Ada\n40000,Ben\n")
    form, out = folder / "form.toml", tmp_path / "out.jsonl"
    known = 'allowed = "class.csv:id"\nshow = ["name"]'
    form.write_text(form.read_text().replace('length = "3-6"', known))
    status, job, err = ask("submit", folder / "pages", "--form", form, "--broker", local.url)
    assert status == 0, err
    with connect(local.url) as redis:
        readers = {
            "string": redis.get,
            "hash": redis.hgetall,
            "list": lambda key: redis.lrange(key, 0, -1),
            "set": redis.smembers,
            "zset": lambda key: redis.zrange(key, 0, -1),
            "stream": redis.xrange,
            "none": redis.exists,  # a worker has removed it meanwhile
        }
        keys = [*redis.scan_iter()]
        stored = repr([readers[redis.type(key).decode()](key) for key in keys])
    assert "40000" in stored and "Ben" not in stored  # the number is allowed
    status, _, err = ask("collect", job.strip(), "-o", out, "--wide", "--broker", local.url)
    assert [line for line in err.splitlines() if line.startswith("student:")] == [
        "student: 1 of 2 in class.csv read on no page: 40000 Ben",
        "student: 1 of 2 in class.csv read on several pages, all to review: "
        "31275 Ada (a.png, b.png)",
        "student: 1 page without a number of class.csv: c.png",
    ]
    first = out.with_name("out-wide.jsonl").read_text().splitlines()[0]
    assert '"student": "31275", "name": "Ada"' in first and '"review": "student' in first
    ask("report", out)
    page.goto(out.with_suffix(".html").as_uri())
    cards = page.locator(".card:visible", has_text=re.compile(r"31275\s+Ada"))
    expect(cards).to_have_count(2)
