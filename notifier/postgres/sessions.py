"""The settings of our sessions, whatever the defaults of the role, the database or the server.

The promise rests on some settings, and people set others for their own applications: a role whose commits do not wait
for the disk, time-outs that end idle sessions, another isolation level. On a connection of our own they are set once.
Behind a transaction pooler the next transaction may be on another server session, which belongs to all: there they are
set in each transaction, in the round trip that begins it.
"""

# A transaction holds locks that others wait for, and we never wait within one. Postgres ends it when its client is
# frozen or cut off for this long, which is less than the time-out of a publish.
IDLE_IN_TRANSACTION_S = 3.0

# Statements have time-outs on our side. This is for one whose client is gone.
STATEMENT_S = 60

_SETTINGS = {
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    # Names without a schema, and operators, are those of Postgres; temporary objects hide none of them.
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    # Locks that are only tried must not end the session.
    "exit_on_error": "off",
    # A policy that hides rows from us is an error instead of messages that are skipped silently.
    "row_security": "off",
    # Our statements are bounded because they walk an index up to a limit, and short: compiling one takes 50 ms.
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "jit": "off",
}

# What the server finds out about us: a machine that lost its power says no farewell, and by default its sessions would
# use up the connections of the database for two hours. (Through a socket file they have no effect.)
_KEEPALIVES = {"tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}

# A commit waits for its flush, at least; an operator who asks for more (or for the local disk only) gets that.
# Postgres 17 and later can end any transaction that takes long.
_CONDITIONAL = """
select set_config('synchronous_commit', 'on', {local}) where current_setting('synchronous_commit') = 'off';
select set_config('transaction_timeout', '0', {local}) where current_setting('transaction_timeout', true) <> '0'
"""


def of_connection(statement_s: float) -> str:
    """SQL that sets up a connection of our own, on which a statement takes at most `statement_s`."""
    # Our functions count on a new snapshot for each statement.
    settings = _SETTINGS | _KEEPALIVES | {"default_transaction_isolation": "'read committed'"}
    return _sql("set", settings, statement_s) + _CONDITIONAL.format(local="false")


def of_transaction(mode: str) -> str:
    """SQL that begins a transaction of this mode (`isolation level …`) with all settings of our sessions."""
    return f"begin {mode};" + _sql("set local", _SETTINGS, STATEMENT_S) + _CONDITIONAL.format(local="true")


def _sql(command: str, settings: dict[str, str], statement_s: float) -> str:
    settings = settings | {
        "statement_timeout": f"{statement_s * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S * 1000:.0f}",
    }
    return "".join(f"{command} {name} = {value};" for name, value in settings.items())
