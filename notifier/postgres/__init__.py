"""Everything that speaks to Postgres. Nothing outside this package imports asyncpg."""
