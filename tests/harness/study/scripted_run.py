"""``mote run`` with the scripted engine, in a process that something happens to; run by the tests of endings.

Usage: scripted_run.py SIGNAL AFTER ROOM ARGUMENTS-OF-MOTE. The signal (0 for none) comes in the midst of the answer of
that number; no file may grow beyond ROOM bytes (0 for as large as it likes). The report is left out.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from mote.harness.cli import main as cli
from mote.harness.engine import once
from mote.harness.engine.vllm import Request
from mote.harness.report import whole
from tests.harness.study.scripted_engine import ScriptedEngine

if __name__ == "__main__":
    number, after, room = map(int, sys.argv[1:4])
    # A suite that was started under nohup ignores SIGHUP, and so would what it starts.
    for one in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)
    engine = ScriptedEngine()

    def happen(request: Request) -> None:
        if number and len(engine.asked) == after:
            os.kill(os.getpid(), number)

    engine.before = happen
    once.started_once = lambda *_: lambda *_: lambda: engine
    whole.write_report = lambda *_: None
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    sys.argv = ["mote", *sys.argv[4:]]
    cli.main()
