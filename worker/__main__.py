"""`python -m worker inspect|train`, which the `digitq` commands of these names run.

Ctrl-C ends them at once, also while torch is being imported.
"""

from protocol.host.process import end_at_once, make_stderr_unfailing

if __name__ == "__main__":
    end_at_once()
    make_stderr_unfailing()
    from worker.commands import commands

    commands(prog_name="digitq")
