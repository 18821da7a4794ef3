"""The recipe of a watched table that a page shows, on another origin, in a real Chromium."""

import asyncpg
import pytest
from conftest import ROOT, Server
from playwright.async_api import BrowserContext

from browser.conftest import elsewhere, strict_page

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

RECIPES = ROOT / "docs" / "recipes"


async def test_a_page_shows_a_table_as_it_changes(context: BrowserContext, server: Server, database: str) -> None:
    sql = await asyncpg.connect(database)
    try:
        await sql.execute((RECIPES / "table.sql").read_text())
        await sql.execute(
            "insert into orders values (1, 'new', 5), (2, 'new', 9.9); update orders set total = 6 where id = 1"
        )
        async with (
            elsewhere(server, RECIPES / "table.html") as url,
            strict_page(context, url.rsplit("/", 1)[0], server.url) as page,
        ):
            await page.goto(url)

            async def shows(*rows: str) -> None:
                await page.wait_for_function(
                    "rows => [...document.querySelectorAll('tbody tr')].map((row) => "
                    "[...row.cells].map((cell) => cell.textContent).join(' ')).join() === rows",
                    arg=",".join(rows),
                )

            await shows("2 new 9.9", "1 new 6")
            await sql.execute(
                "begin; update orders set status = 'paid' where id = 2; insert into orders values (3, 'new', 1)"
            )
            await sql.execute("commit")
            await shows("2 paid 9.9", "1 new 6", "3 new 1")
            await sql.execute("begin; delete from orders; rollback; delete from orders where id = 1")
            await shows("2 paid 9.9", "3 new 1")
            await sql.execute("update orders set id = 4 where id = 3")
            await shows("2 paid 9.9", "4 new 1")
            await sql.execute("truncate orders; insert into orders values (5, '<b>', 0)")
            await shows("5 <b> 0")
    finally:
        await sql.close()
