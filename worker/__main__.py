"""`python -m worker inspect|train`, behind the `digitq` commands of these names.

Ctrl-C ends them at once, while torch is imported as well.
"""

from protocol.host.process import end_at_once, make_stderr_unfailing

if __name__ == "__main__":
    end_at_once()
    make_stderr_unfailing()
    from worker.commands import commands

    commands(prog_name="digitq")
