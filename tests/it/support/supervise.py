"""Runs a command until its own standard input closes, then ends the command and removes its folder.

Usage: supervise.py [--quit] FOLDER COMMAND...

The tests hold the other end of that input and never write to it. The kernel closes it when their process ends, however
it ends, so no server outlives its tests. The command is killed; with --quit it is first asked to end at once, by SIGQUIT,
which is how PostgreSQL gives back what it holds of the system.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading


def main():
    words = sys.argv[1:]
    asks = words[0] == "--quit"
    folder, command = words[asks], words[asks + 1 :]
    # An interrupt at the terminal is for the tests; we follow when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def until_the_tests_end():
        while os.read(0, 4096):
            pass
        try:
            if asks:
                os.kill(child.pid, signal.SIGQUIT)
                try:
                    child.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    pass
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    threading.Thread(target=until_the_tests_end, daemon=True).start()
    code = child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code if code >= 0 else 1)


main()
