"""Faults at random moments of many runs, until enough was killed."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from kombu.exceptions import OperationalError

from digitq.protocol.errors import BrokerError
from tests.chaos.deployment import Deployment
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.runs import AttachedRun, DetachedRun, Run, compare

PAUSE_SECONDS = 2.5  # at most, between two faults


@dataclass
class Tally:
    """What came of a fault. A run's rows count for every fault that struck it."""

    times: int = 0
    runs: int = 0
    rows: int = 0
    lost: int = 0
    twice: int = 0
    attempts: int = 0  # at most, at any chunk of a submitted job
    longest_stall: float = 0.0  # seconds without progress after it, until the next

    def add(self, rows: int, lost: int, twice: int) -> None:
        """One more run."""
        self.runs, self.rows = self.runs + 1, self.rows + rows
        self.lost, self.twice = self.lost + lost, self.twice + twice


class Campaign:
    """Strikes runs over one deployment, each time compared with the result of a quiet one."""

    def __init__(
        self,
        deployment: Deployment,
        source: Path,
        folder: Path,
        random: Random,
        at_first_seconds: float = 0.5,
    ) -> None:
        """`at_first_seconds` is the time from a job's beginning to its first fault, at most."""
        self.tallies = {fault: Tally() for fault in FAULTS}
        self.total = Tally()
        self.kills = 0
        self._deployment, self._source, self._folder = deployment, source, folder
        self._random, self._at_first_seconds = random, at_first_seconds
        self._last: Fault | None = None
        quiet = AttachedRun(deployment, source, folder / "quiet")
        self._finish(quiet, strikes=0)
        self._expected = quiet.outs[0].read_bytes()

    def strike_run(self, strikes: int, detached: bool, faults: tuple[Fault, ...] = FAULTS) -> Run:
        """One run with so many faults, then compare its results."""
        kind = DetachedRun if detached else AttachedRun
        run = kind(self._deployment, self._source, self._folder / f"run{self.total.runs}")
        possible = [fault for fault in faults if not (detached and fault.forgets)]
        struck = self._finish(run, strikes, possible)
        for out in run.outs:
            found = compare(out.read_bytes(), self._expected)
            for tally in (self.total, *(self.tallies[fault] for fault in struck)):
                tally.add(*found)
                tally.attempts = max(tally.attempts, run.most_attempts())
        return run

    def _finish(self, run: Run, strikes: int, faults: list[Fault] | None = None) -> set[Fault]:
        """Start a run and see it through; gives the faults that struck it."""
        struck: set[Fault] = set()
        others = self._active()  # of commands that were killed, perhaps
        run.start()
        next_strike = float("inf")
        while not run.is_done():
            self._deployment.tend()
            if self._last:
                tally = self.tallies[self._last]
                tally.longest_stall = max(tally.longest_stall, run.stall_seconds)
            if next_strike == float("inf") and self._active() - others:  # it has reached Redis
                next_strike = time.monotonic() + self._random.uniform(0, self._at_first_seconds)
            if faults and strikes and time.monotonic() > next_strike:
                with suppress(
                    BrokerError, OperationalError
                ):  # this one needs Redis, which an earlier one keeps down
                    struck.add(self._strike(self._choose(faults)))
                    strikes -= 1
                    run.moved()
                next_strike = time.monotonic() + self._random.uniform(0, PAUSE_SECONDS)
            time.sleep(0.01)  # between two looks at the run
        self._deployment.heal()
        self._last = None
        return struck

    def _active(self) -> set[str]:
        """The jobs that are not done; none where Redis can't be asked."""
        with suppress(BrokerError):
            return set(self._deployment.ledger().active())
        return set()

    def _choose(self, faults: list[Fault]) -> Fault:
        """Any of them; a kill half of the time, where there is one."""
        kills = [fault for fault in faults if fault.kills]
        return self._random.choice(kills if kills and self._random.random() < 0.5 else faults)

    def _strike(self, fault: Fault) -> Fault:
        fault.strike(self._deployment, self._random)
        self.kills += fault.kills
        self.tallies[fault].times += 1
        self.total.times += 1
        self._last = fault
        return fault

    def table(self) -> str:
        """A line for each fault, and one for all."""
        lines = [
            f"{'fault':<42}{'times':>7}{'rows':>10}{'lost':>6}{'twice':>7}{'attempts':>10}{'stall':>9}"
        ]
        self.total.longest_stall = max(tally.longest_stall for tally in self.tallies.values())
        for name, tally in [*((f.name, t) for f, t in self.tallies.items()), ("all", self.total)]:
            lines.append(
                f"{name:<42}{tally.times:>7}{tally.rows:>10,}{tally.lost:>6}{tally.twice:>7}"
                f"{tally.attempts:>10}{tally.longest_stall:>7.1f} s"
            )
        return "\n".join(lines)
