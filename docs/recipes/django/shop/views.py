from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST
from live.publishing import publish

from shop.models import Order


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"notifier_url": settings.NOTIFIER_URL})


@require_POST
@login_required
@transaction.atomic
def pay(request: HttpRequest, pk: int) -> HttpResponse:
    order = get_object_or_404(Order.objects.select_for_update(), pk=pk, customer=request.user)
    order.paid = True
    order.save()
    publish(f"user/{request.user.pk}/orders", {"order": order.pk, "status": "paid"})
    return HttpResponse(status=204)
