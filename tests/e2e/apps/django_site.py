"""A Django project in one file: a page, a stream, an upload, a page that raises."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="test", MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware",
    ],
    LOGGING={
        "version": 1,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR"}},
    },
)  # fmt: skip
django.setup()


def index(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"path": request.path, "query": dict(request.GET), "pid": os.getpid()})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def blocks() -> Iterator[bytes]:
        for number in range(100):
            yield f"{number:05}\n".encode() * 100

    return StreamingHttpResponse(blocks(), content_type="text/plain")


def upload(request: HttpRequest) -> HttpResponse:
    sent = request.FILES["file"]
    return JsonResponse({"name": sent.name, "sha256": hashlib.sha256(sent.read()).hexdigest()})


def boom(request: HttpRequest) -> HttpResponse:
    raise LookupError("no such teapot")


urlpatterns = [
    path("page/<int:number>", index), path("stream", stream), path("upload", upload), path("boom", boom),
]  # fmt: skip
application = get_wsgi_application()
