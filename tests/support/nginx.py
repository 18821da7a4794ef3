"""A real nginx, on loopback."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import DEADLINE_S, ROOT, free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


def documented() -> str:
    """The configuration that docs/operations.md gives."""
    [block] = re.findall(r"^```nginx\n(.*?)^```$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
    return block


@contextmanager
def nginx(config: str, folder: Path) -> Iterator[str]:
    """The URL of an nginx with what `config` has for its block `http`: there the first server gets an address. It takes
    a moment to listen."""
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid;\n"
        f"error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n"
        + config.replace("server {\n", f"server {{ listen 127.0.0.1:{port};\n", 1)
        + "\n}\n"
    )
    assert NGINX, "make test-all installs nginx"
    with subprocess.Popen([NGINX, "-e", f"{folder}/error.log", "-c", str(path)]) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
