"""`python -m worker inspect|train|see`, which `digitq inspect`, `train` and `report` run."""

from protocol.host.process import end_at_once, make_stderr_unfailing

if __name__ == "__main__":
    end_at_once()  # at Ctrl-C, also while torch is being imported
    make_stderr_unfailing()
    from worker.commands import commands

    commands(prog_name="digitq")
