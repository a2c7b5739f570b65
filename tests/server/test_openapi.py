"""Requests that schemathesis makes from the OpenAPI description: no failure, and no answer but the described ones."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from support.serving import LiveServer

ENDLESS = "/v1/indexing/events"
"""A stream without an end, which schemathesis would read for ever."""


def send_requests(server: LiveServer, number: int) -> list[str]:
    """Send up to `number` valid and as many invalid requests of each kind, and return the names of the kinds.

    A request that fits its schema may still be refused: no schema says that a string is a sound or an indexed path.
    """
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(path=ENDLESS)
    names = []
    for result in schema.get_all_operations():
        operation = result.ok()
        names.append(operation.label)
        for mode in GenerationMode:

            @settings(
                max_examples=number,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                case.call_and_validate(timeout=30, excluded_checks=[positive_data_acceptance])

            with suppress(Unsatisfiable):  # a route without parameters has no invalid requests
                send()
    return names


def test_few_requests_of_each_kind(live: LiveServer) -> None:
    names = send_requests(live, 1)
    assert len(names) > 20 and "POST /v1/embeddings" in names


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_requests_of_each_kind(live: LiveServer) -> None:
    send_requests(live, 300)
