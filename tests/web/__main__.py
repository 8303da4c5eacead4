"""All that schemathesis can think of, against the real web process with a played project: `make fuzz`.

    python -m tests.web [options of `schemathesis run`]

Beside the tests' calls it walks the edges of every parameter, sends wrong methods, and follows answers into new calls.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from backend.rounds.queue import prepare_database
from backend.web.openapi import PREFIX
from tests.web.conftest import serving
from tests.web.played import play, with_query

REFUSALS = "positive_data_acceptance"  # what the document allows may still be refused: a foreign bucket, a conflict


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"NEXTBATCH_HOME": folder, "NEXTBATCH_DATA_ROOT": f"{folder}/data"}
        prepare_database()
        played = play(Path(folder) / "data")
        config = Path(folder) / "schemathesis.toml"
        config.write_text(f'[parameters]\n"path.name" = "{played.name}"\n"path.number" = {with_query(played)}\n')
        with serving(Path(folder)) as web:
            program = Path(sys.executable).with_name("schemathesis")
            command = [
                *(program, "--config-file", config, "run", f"{web.url}{PREFIX}/openapi.json"),
                *("--exclude-checks", REFUSALS, "--generation-deterministic"),
                *sys.argv[1:],
            ]
            return subprocess.run(command, check=False, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
