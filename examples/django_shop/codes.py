"""Sign-in by a code: ask for one, for another one, type it. What a visitor is told depends on no number."""

from __future__ import annotations

import logging

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from dispatcher import (
    IllegalMove,
    InvalidRequest,
    KeyLimited,
    NotFound,
    StoreUnavailable,
    VerificationRefused,
    WaitTimeout,
)
from django_shop.texts import dispatcher

log = logging.getLogger(__name__)


def visitor(request: HttpRequest) -> dict[str, str]:
    """Return what a visitor's codes are counted by. Behind a proxy that is its address: take the one it tells."""
    return {"ip": request.META["REMOTE_ADDR"]}


@require_POST
def start(request: HttpRequest) -> JsonResponse:
    """Text a code to the number in `to`; which verification it is, the session remembers."""
    request.session["verification"] = ""
    try:
        job = dispatcher().verify(
            request.POST.get("to", ""),
            template="Your code for the shop is [CODE]",
            provider="textgoto",
            guard_keys=visitor(request),
        )
    except InvalidRequest as error:
        return JsonResponse({"detail": f"{error.field} {error.reason}"}, status=422)
    except KeyLimited as refused:
        return JsonResponse({}, status=429, headers={"Retry-After": str(refused.retry_after)})
    except VerificationRefused as refused:
        log.warning("no code was sent: %s", refused.code)
    except StoreUnavailable:
        return JsonResponse({}, status=503, headers={"Retry-After": "5"})
    else:
        request.session["verification"] = job.id
    return JsonResponse({"sent": True}, status=202)


@require_POST
def another(request: HttpRequest) -> JsonResponse:
    """Text another code; the one before is dead. Too soon, or over: the answer is the same."""
    try:
        dispatcher().resend(request.session.get("verification", ""), guard_keys=visitor(request))
    except KeyLimited as refused:
        return JsonResponse({}, status=429, headers={"Retry-After": str(refused.retry_after)})
    except (VerificationRefused, IllegalMove, NotFound) as refused:
        log.warning("no other code was sent: %s", type(refused).__name__)
    except StoreUnavailable:
        return JsonResponse({}, status=503, headers={"Retry-After": "5"})
    return JsonResponse({"sent": True}, status=202)


@require_POST
def check(request: HttpRequest) -> JsonResponse:
    """Judge the code that was typed: whatever it is that makes it not right, the answer is the same."""
    try:
        valid = dispatcher().check(request.session.get("verification", ""), request.POST.get("code", "")).valid
    except (InvalidRequest, NotFound):
        valid = False
    except (StoreUnavailable, WaitTimeout):
        return JsonResponse({}, status=503, headers={"Retry-After": "5"})
    if valid:
        # Nobody goes on in a session that somebody else may have begun.
        request.session.cycle_key()
        request.session["signed_in"] = True
    return JsonResponse({"valid": valid})
