"""What a person who is asked sees and types: the paused runs, the calls they wait for, and the commands that decide on them."""

import getpass
import json
import shlex

import pytest
from support.commands import Commands
from support.database import Conn
from support.rows import row_of

from pgrun._ids import new_run_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WAITS = [
    {"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund", "arguments": {"order": 7}},
    {"kind": "external", "step": 3, "call_id": "call_2", "name": "sign", "arguments": {"text": "it's"}},
    {
        **{"kind": "user_input", "step": 4, "call_id": "call_3", "name": "ship", "arguments": {}},
        "fields": [{"name": "street"}],
    },
]


@pytest.fixture
def cli(dsn: str) -> Commands:
    return Commands(PGRUN_DATABASE_URL=dsn)


@pytest.fixture
def run_id(conn: Conn) -> str:
    """A run that waits for three decisions."""
    run_id = new_run_id()
    conn.execute(
        "insert into pgrun.jobs (run_id, kind, name, status, attempt, started_at, paused_at, requirements) "
        "values (%s, 'agent', 'Desk', 'paused', 0, now(), now(), %s)",
        [run_id, json.dumps(WAITS)],
    )
    return run_id


def says(cli: Commands, *words: str, code: int = 0) -> str:
    """What a command prints."""
    done = cli(*words)
    assert done.returncode == code, done
    return done.stdout + done.stderr


def test_what_show_says_can_be_typed_as_it_stands(cli: Commands, conn: Conn, run_id: str) -> None:
    listed = says(cli, "ls", "--status", "paused")
    assert "waits_for" in listed
    assert "confirmation of refund, external of sign, user_input of ship" in listed
    shown = says(cli, "show", run_id)
    table = shown[shown.index("waits for a person:") :].splitlines()[1:5]
    assert table == [
        "call_id  name    arguments         question",
        'call_1   refund  {"order": 7}      May it be called?',
        'call_2   sign    {"text": "it\'s"}  What did it return?',
        "call_3   ship    {}                With which values?",
    ]
    commands = [shlex.split(line)[1:] for line in shown.splitlines() if line.startswith("pgrun ")]
    assert [words[0] for words in commands] == ["approve", "approve", "approve", "reject"]
    assert commands[1][-2:] == ["--result", "TEXT"]
    assert json.loads(commands[2][-1]) == {"street": "…"}
    commands[1] += ["--by", "ada"]
    outputs = [says(cli, *words) for words in commands[:3]]
    assert outputs == [f"{run_id} paused\n", f"{run_id} paused\n", f"{run_id} pending\n"]
    shown = says(cli, "show", run_id)
    assert "waits for a person:" not in shown
    table = shown[shown.index("decided by people:") :].splitlines()[1:5]
    me = getpass.getuser()
    assert [line.split()[:4] for line in table] == [
        ["call_id", "name", "decision", "by"],
        *(
            ["call_1", "refund", "approved", me],
            ["call_2", "sign", "approved", "ada"],
            ["call_3", "ship", "approved", me],
        ),
    ]
    decided = row_of(conn, run_id)["requirements"]
    assert [(each["approved"], each.get("result"), each.get("input")) for each in decided] == [
        (True, None, None),
        (True, "TEXT", None),
        (True, None, {"street": "…"}),
    ]


def test_all_can_be_rejected_at_once_with_a_reason(cli: Commands, conn: Conn, run_id: str) -> None:
    answer = json.loads(says(cli, "reject", run_id, "--note", "it's too much", "--json"))
    assert answer == {"run_id": run_id, "status": "pending"}
    decided = row_of(conn, run_id)["requirements"]
    assert [(each["approved"], each["note"]) for each in decided] == [(False, "it's too much")] * 3


def test_what_cannot_be_is_refused_and_says_what_can(cli: Commands, conn: Conn, run_id: str) -> None:
    for words, code, words_of_error in (
        (("approve", run_id), 2, "is executed elsewhere: say what it returned"),
        (("approve", run_id, "--call", "call_9"), 2, "It waits for: call_1 (confirmation of refund), call_2"),
        (("approve", run_id, "--call", "call_3", "--input", "[1]"), 2, "--input must be a JSON object"),
        (("approve", run_id, "--call", "call_3", "--input", "{"), 2, "--input is no JSON"),
        (("approve", "nothing"), 2, "is not a UUID"),
        (("reject", new_run_id()), 1, "exists"),
    ):
        assert words_of_error in says(cli, *words, code=code)
    assert row_of(conn, run_id)["requirements"] == WAITS
    says(cli, "cancel", run_id)
    assert "is cancelled: it waits for nobody" in says(cli, "approve", run_id, code=2)
