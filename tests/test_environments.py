"""What is being installed ends with whoever installs it: the next one begins in an empty folder, and alone."""

import subprocess
import sys
from pathlib import Path

import psutil

from backend.processes import wait_until

BUILDS = """
import sys, time
from pathlib import Path
from backend import environments

work = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
environments._run([sys.executable, "-c", work, sys.argv[1]], Path(sys.argv[2]))
"""


def test_a_build_dies_with_the_process_that_was_killed_over_it(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    builder = subprocess.Popen([sys.executable, "-c", BUILDS, noted, tmp_path / "log"])
    try:
        assert wait_until(lambda: noted.exists() and noted.read_text() != "", 60)
        build = psutil.Process(int(noted.read_text()))

        builder.kill()
        builder.wait()

        assert wait_until(lambda: not build.is_running() or build.status() == psutil.STATUS_ZOMBIE, 20)
    finally:
        builder.kill()
        if noted.exists() and psutil.pid_exists(int(noted.read_text())):
            psutil.Process(int(noted.read_text())).kill()
