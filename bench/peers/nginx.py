"""nchan, the module that makes nginx a long-polling server, from the packages of Debian or Ubuntu."""

import os
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.peers.once import said
from bench.peers.peer import FOLDER

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


@dataclass(frozen=True)
class Nginx:
    def missing(self, _: Sequence[str] = ()) -> str | None:
        return (
            None
            if program() and MODULE.exists()
            else "nginx with nchan (Debian's packages nginx and libnginx-mod-nchan)"
        )

    def install(self) -> None:
        if self.missing():
            said(["sh", FOLDER / "install.sh", "nginx", "libnginx-mod-nchan"])

    def version(self, _: Sequence[str]) -> str:
        return nchan_version()

    def command(self, program_: Sequence[str], port: int, folder: Path) -> Sequence[str]:
        text = (FOLDER / program_[0]).read_text()
        values = {
            "MODULE": str(MODULE),
            "USER": "user root;" if os.geteuid() == 0 else "",
            "FOLDER": str(folder),
            "PORT": str(port),
            "FILES": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        }
        for name, value in values.items():
            text = text.replace(name, value)
        config = folder / "nginx.conf"
        config.write_text(text)
        return (program() or "nginx", "-e", "stderr", "-c", str(config))


def program() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@cache
def nchan_version() -> str:
    query = ("dpkg-query", "--show", "--showformat=${Version} ")
    nchan, nginx = said([*query, "libnginx-mod-nchan", "nginx"]).split()
    return f"nchan {nchan} on nginx {nginx}"


NGINX = Nginx()
