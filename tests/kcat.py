"""kcat, a client of Kafka that is built on librdkafka and knows nothing of us: found and run.

Invariant: a call that kcat reports as failed raises; nothing waits without a limit.
"""

import os
import shutil
import subprocess
from typing import Final

import pytest

from conftest import REQUIRE_VARIABLE

WITHIN_S: Final = 30.0


def need_kcat() -> str:
    """The path of kcat. Without one the test is skipped, or fails where the Kafka tests are required."""
    path = shutil.which("kcat")
    if path is None:
        reason = "no kcat: install it (Debian's package is kcat)"
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(f"{REQUIRE_VARIABLE}=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    return path


def kcat(servers: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """What kcat printed."""
    command = [need_kcat(), "-b", servers, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')}"
    return done.stdout
