"""docker-compose.yml, as far as that can be judged without an engine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_SERVICE_KEYS = {
    *("image", "command", "environment", "ports", "volumes", "depends_on", "healthcheck", "profiles", "restart"),
    "stop_grace_period",
}


@pytest.fixture
def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    return data


def test_it_has_the_database_that_programs_expect(compose: dict[str, Any]) -> None:
    postgres = compose["services"]["postgres"]
    assert postgres["image"] == "postgres:18"
    assert postgres["ports"] == ["5532:5432"]
    assert set(postgres["environment"].values()) == {"ai"}


def test_a_worker_starts_after_the_migration_and_the_pooler_is_optional(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["worker"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["pgbouncer"]["profiles"] == ["pooler"]


def test_only_keys_of_the_compose_specification_are_used(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes"}
    for service in compose["services"].values():
        assert set(service) <= _SERVICE_KEYS
        for dependency in service.get("depends_on", {}):
            assert dependency in compose["services"]
    assert set(compose["volumes"]) == {"postgres"}
