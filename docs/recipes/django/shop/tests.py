from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import TestCase

from shop.models import Order


def published() -> list[tuple[str, str]]:
    """Topic and data of what this test has published so far."""
    with connection.cursor() as cursor:
        cursor.execute("select topic, data::text from notifier.outbox order by id")
        return cursor.fetchall()


class OrderTest(TestCase):
    def setUp(self) -> None:
        self.user = User.objects.create_user("ada", password="secret")
        self.order = Order.objects.create(customer=self.user)
        self.client.force_login(self.user)

    def test_a_paid_order_is_published_to_its_customer(self) -> None:
        self.assertEqual(self.client.post(f"/orders/{self.order.pk}/pay").status_code, 204)
        data = f'{{"order": {self.order.pk}, "status": "paid"}}'
        self.assertEqual(published(), [(f"user/{self.user.pk}/orders", data)])

    def test_what_is_rolled_back_is_never_published(self) -> None:
        with transaction.atomic():
            self.client.post(f"/orders/{self.order.pk}/pay")
            transaction.set_rollback(True)
        self.assertEqual(published(), [])


class TokenTest(TestCase):
    def test_only_the_logged_in_get_a_token(self) -> None:
        self.assertEqual(self.client.get("/live/token").status_code, 401)
        self.client.force_login(User.objects.create_user("ada"))
        self.assertEqual(self.client.get("/live/token").status_code, 200)
        self.client.logout()
        self.assertEqual(self.client.get("/live/token").status_code, 401)
