"""Runs a command until its own standard input closes, then ends the command and removes its folder.

Usage: supervise.py FOLDER COMMAND...

The tests hold the other end of that input and never write to it. The kernel closes it when their process ends, however
it ends, so no server outlives its tests.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading


def main():
    folder, command = sys.argv[1], sys.argv[2:]
    # An interrupt at the terminal is for the tests; we follow when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def until_the_tests_end():
        while os.read(0, 4096):
            pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    threading.Thread(target=until_the_tests_end, daemon=True).start()
    code = child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code if code >= 0 else 1)


main()
