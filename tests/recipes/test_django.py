"""The recipe for Django: its own tests, and the whole of it in a real Chromium, on another origin than Notifier's."""

import asyncio
import multiprocessing
import re
from pathlib import Path

import pytest
from browser.conftest import browser
from conftest import Server, free_port
from playwright.async_api import Browser

from recipes.conftest import DJANGO_PROJECT, SECRET, manage, running_recipe

pytestmark = pytest.mark.all

# A poll that nothing ends waits for 22.5 s or more.
LESS_THAN_A_WAIT_MS = 20_000

__all__ = ["browser"]

ADA = "from django.contrib.auth.models import User; print(User.objects.create_user('ada', password='secret').pk)"
ORDER = "from shop.models import Order; print(Order.objects.create(customer_id={}).pk)"


def test_its_own_tests_pass_on_a_database_that_django_makes(empty_database: str, command: Path, packages: None) -> None:
    # In parallel, Django copies the database that it has made; on Python 3.14, later versions of it do.
    parallel = ("--parallel", "2") if multiprocessing.get_start_method() == "fork" else ()
    done = manage(empty_database, command, "test", *parallel)
    assert done.returncode == 0, done.stderr
    assert ("Cloning test database" in done.stderr) == bool(parallel)
    assert "Ran 3 tests" in done.stderr


def test_without_the_hook_the_database_that_django_makes_has_no_schema(
    empty_database: str, command: Path, packages: None
) -> None:
    (command / "notifier").write_text("#!/bin/sh\n")
    assert 'schema "notifier" does not exist' in manage(empty_database, command, "test").stderr


@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_follows_its_user_from_another_origin_until_the_user_logs_out(
    browser: Browser, empty_database: str, command: Path, packages: None, tmp_path: Path
) -> None:
    def django(*arguments: str) -> str:
        done = manage(empty_database, command, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    await asyncio.to_thread(django, "migrate")  # of Notifier's schema, too
    [user] = re.findall(r"[0-9]+", (await asyncio.to_thread(django, "shell", "-v", "0", "-c", ADA)).splitlines()[-1])
    said = await asyncio.to_thread(django, "shell", "-v", "0", "-c", ORDER.format(user))
    [order] = re.findall(r"[0-9]+", said.splitlines()[-1])

    port = free_port()
    notifier = Server(empty_database, tmp_path / "notifier.log")
    notifier.env |= {"NOTIFIER_JWT_SECRET": SECRET, "NOTIFIER_ORIGINS": f"http://localhost:{port}"}
    try:
        await asyncio.to_thread(notifier.start)
        async with running_recipe(DJANGO_PROJECT, empty_database, notifier.url, port, tmp_path) as origin:
            context = await browser.new_context()
            page = await context.new_page()
            thrown: list[object] = []
            page.on("pageerror", lambda error: thrown.append(error))

            await page.goto(f"{origin}/")
            await page.fill("[name=username]", "ada")
            await page.fill("[name=password]", "secret")
            async with page.expect_response(lambda response: response.url.startswith(f"{notifier.url}/v1/")):
                await page.click("button")
            other = await context.new_page()
            await other.goto(f"{origin}/")
            paid = """async (path) => {
                const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
                return (await fetch(path, { method: "POST", headers: { "X-CSRFToken": token } })).status;
            }"""
            assert await other.evaluate(paid, f"/orders/{order}/pay") == 204
            line = page.locator("li", has_text=f'user/{user}/orders {{"order":{order},"status":"paid"}}')
            await line.wait_for()

            # The poll of the one page ends at once when the user logs out on the other: it is far from its time.
            ended = asyncio.create_task(page.wait_for_url("**/accounts/login/**", timeout=LESS_THAN_A_WAIT_MS))
            await other.click("button")
            await ended
            assert not thrown
            await context.close()
    finally:
        notifier.close()
