"""The HTTP API for services that are not in Python: an ASGI application over `AsyncDispatcher`.

`gate` lets requests in (token, size, media type), `bodies` says what they may hold, `app` has the endpoints,
`following` the events, `repeats` what an Idempotency-Key means, `problems` what errors become, `description` the
OpenAPI document. Nothing of what a job is or may become is decided here.
"""
