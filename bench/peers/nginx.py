"""nchan, the module that makes nginx a long-polling server, from the packages of Debian or Ubuntu."""

import os
import re
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.peers.once import said
from bench.peers.peer import FOLDER

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PACKAGES = ("libnginx-mod-nchan", "nginx")
# nginx wants folders for all of these, also where nothing is kept in them.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Nginx:
    def missing(self, packages: Sequence[str] = PACKAGES) -> str | None:
        there = nginx() and (MODULE.exists() or "libnginx-mod-nchan" not in packages)
        return None if there else f"Debian's {' and '.join(packages)}"

    def install(self) -> None:
        if self.missing():
            said(["sh", FOLDER / "install.sh", *PACKAGES])

    def version(self, _: Sequence[str]) -> str:
        return nchan_version()

    def command(self, program: Sequence[str], port: int, folder: Path) -> Sequence[str]:
        """`program` is a configuration, and the server that it proxies if it does."""
        name, *upstream = program
        values = {
            "MODULE": str(MODULE),
            "USER": "user root;" if os.geteuid() == 0 else "",
            "TEMPORARY": " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY),
            "FOLDER": str(folder),
            "PORT": str(port),
            "FILES": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            "UPSTREAM": "".join(upstream),
        }
        config = folder / "nginx.conf"
        text = (FOLDER / name).read_text()
        config.write_text(re.sub(rf"\b({'|'.join(values)})\b", lambda found: values[found[0]], text))
        return (nginx() or "nginx", "-e", "stderr", "-c", str(config))


def nginx() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@cache
def nchan_version() -> str:
    query = ("dpkg-query", "--show", "--showformat=${Version} ")
    nchan, on = said([*query, *PACKAGES]).split()
    return f"nchan {nchan} on nginx {on}"


NGINX = Nginx()
