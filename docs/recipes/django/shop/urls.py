from django.contrib.auth.views import LoginView, LogoutView
from django.db import transaction
from django.urls import path
from live.views import token

from shop import views

urlpatterns = [
    path("", views.home),
    path("orders/<int:pk>/pay", views.pay),
    path("live/token", token),
    path("accounts/login/", LoginView.as_view(template_name="login.html"), name="login"),
    # One transaction: the session goes and its tokens are revoked, or neither.
    path("accounts/logout/", transaction.atomic(LogoutView.as_view()), name="logout"),
]
