"""Database URLs: every form that users write, and nothing that could show a password."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgrun import PostgresDb, UsageError
from pgrun.db._address import parse_url, url_from_environment

PG_VARIABLES = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGRUN_DATABASE_URL", "DATABASE_URL")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PG_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def parsed(url: str) -> dict[str, str]:
    return {key: str(value) for key, value in conninfo_to_dict(parse_url(url).conninfo).items()}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ai:geheim@localhost:5532/app",
        "postgres://ai:geheim@localhost:5532/app",
        "postgresql+psycopg://ai:geheim@localhost:5532/app",
        "postgresql+psycopg2://ai:geheim@localhost:5532/app",
        "postgresql+asyncpg://ai:geheim@localhost:5532/app",
        "postgres+psycopg_async://ai:geheim@localhost:5532/app",
        "  postgresql://ai:geheim@localhost:5532/app\n",
        "host=localhost port=5532 user=ai password=geheim dbname=app",
        "host = localhost port = 5532 user = ai password = 'geheim' dbname = app",
    ],
)
def test_every_form_leads_to_the_same_database(url: str) -> None:
    wanted = {"host": "localhost", "port": "5532", "user": "ai", "password": "geheim", "dbname": "app"}
    assert parsed(url).items() >= wanted.items()
    assert parse_url(url).shown == 'database "app" at localhost port 5532 as ai'


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (
            "postgresql://h/app?sslmode=require&application_name=mine",
            {"sslmode": "require", "application_name": "mine"},
        ),
        ("postgresql:///app?host=/var/run/postgresql", {"host": "/var/run/postgresql", "dbname": "app"}),
        ("postgresql://[::1]:5433/app", {"host": "::1", "port": "5433"}),
        ("postgresql://u:p%40ss%2Fw%25@h/app", {"password": "p@ss/w%", "host": "h"}),
        ("postgresql://u:p#a?b@h/app", {"password": "p#a?b", "host": "h"}),
        ("host=h password='a b\\'c'", {"password": "a b'c"}),
        ("host=h password=p@s/s@", {"password": "p@s/s@", "host": "h"}),
        ("service=mine", {"service": "mine"}),
    ],
)
def test_the_rest_of_what_libpq_takes(url: str, wanted: dict[str, str]) -> None:
    assert parsed(url).items() >= wanted.items()


def test_defaults_notice_a_dead_network_in_seconds() -> None:
    found = parsed("postgresql://h/app")
    assert found["application_name"] == "pgrun"
    assert found["connect_timeout"] == "10"
    assert found["tcp_user_timeout"] == "5000"
    assert (found["keepalives_idle"], found["keepalives_interval"], found["keepalives_count"]) == ("5", "1", "3")
    assert "target_session_attrs" not in found


def test_defaults_do_not_override_what_the_user_says() -> None:
    given = {"application_name": "mine", "connect_timeout": "3", "tcp_user_timeout": "9", "keepalives_idle": "60"}
    found = parsed("host=h " + " ".join(f"{key}={value}" for key, value in given.items()))
    assert found.items() >= given.items()
    assert found["keepalives_count"] == "3"


@pytest.mark.parametrize(
    "url", ["postgresql://a:5432,b:5433/app", "host=a,b dbname=app", "hostaddr=127.0.0.1,127.0.0.2 dbname=app"]
)
def test_of_several_hosts_the_one_that_takes_writes_is_used(url: str) -> None:
    assert parsed(url)["target_session_attrs"] == "read-write"
    assert parsed(f"{url}{'?' if ':/' in url else ' '}target_session_attrs=any")["target_session_attrs"] == "any"


@pytest.mark.parametrize(
    "url",
    ["", "  ", "postgresql://", "mysql://u:geheim@h/app", "nonsense", "jdbc:postgresql://h/app", "host=h pasword=x"],
)
def test_what_is_no_database_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageError, match=r"database URL .*; write postgresql://user:password@host:5432/database"):
        parse_url(url)


def test_the_reason_is_told_where_no_password_can_be_in_it() -> None:
    with pytest.raises(UsageError, match=r'invalid connection option "pasword"'):
        parse_url("host=h pasword=geheim")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@h:5432/app",
        "postgresql+psycopg://u:geheim@h1,h2/app",
        "postgresql://h/app?user=u&password=geheim",
        "host=h user=u password=geheim",
        "host=h user=u password=geheim sslpassword=geheim",
    ],
)
def test_a_password_is_nowhere_to_be_seen(url: str) -> None:
    address = parse_url(url)
    for shown in (address.shown, repr(address), str(address), repr(PostgresDb(url))):
        assert "geheim" not in shown
    assert "geheim" in address.conninfo


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:geheim@h/app",
        "postgresql://u:geheim@h/app?nonsense=1",
        "postgresql://u:geheim@h/app?geheim",
        "postgresql://u:x%zzgeheim@h/app",
        "postgresql://u:geheim@[::1/app",
        "host=h password=geheim geheim",
        "host=h password=geh eim",
        "host=h password='geheim",
        "postgresql://u:ge@geheim@h/app",
        "postgresql://u:ge/geheim@h/app",
        "postgres+psycopg://u:ge/geheim@h:5432/app?sslmode=require",
        "postgresql://u:ge@h1@geheim,h2/app",
    ],
)
def test_the_refusal_of_a_url_does_not_repeat_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        PostgresDb(url)
    assert "eim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_that_must_be_escaped_is_told_how() -> None:
    with pytest.raises(UsageError, match="an @ or / in its password: write them as %40 and %2F"):
        parse_url("postgresql://u:p@ss@h/app")
    assert parsed("postgresql://h/app?options=-c%20x%3Da@b")["options"] == "-c x=a@b"
    assert parsed("postgresql://h/a%40b")["dbname"] == "a@b"


def test_what_is_not_said_is_shown_as_libpq_will_choose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_url("host=h").shown == 'database "default user" at h port 5432 as default user'
    assert parse_url("user=ai").shown == 'database "ai" at local socket port 5432 as ai'
    for name, value in {"PGHOST": "there", "PGPORT": "6543", "PGUSER": "me", "PGDATABASE": "app"}.items():
        monkeypatch.setenv(name, value)
    assert parse_url("application_name=x").shown == 'database "app" at there port 6543 as me'


def test_without_a_url_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r'no database URL: pass one, or set \$PGRUN_DATABASE_URL.*"embedded:" starts'):
        PostgresDb()
    monkeypatch.setenv("DATABASE_URL", "postgresql://second/app")
    assert url_from_environment("PGRUN_DATABASE_URL", "DATABASE_URL") == "postgresql://second/app"
    monkeypatch.setenv("PGRUN_DATABASE_URL", "postgresql://ai@first/app")
    assert url_from_environment("PGRUN_DATABASE_URL", "DATABASE_URL") == "postgresql://ai@first/app"
    assert repr(PostgresDb()) == '<PostgresDb database "app" at first port 5432 as ai, schema pgrun>'


def test_nothing_is_started_or_connected_before_the_first_use() -> None:
    assert "schema acme" in repr(PostgresDb("embedded:/nowhere/at/all", schema="acme"))
    assert repr(PostgresDb("postgresql://nowhere.invalid/app", listen_url="host=nowhere.invalid"))
