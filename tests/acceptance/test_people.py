"""What a person who is asked sees and types: the paused runs, the calls they wait for, and the commands that decide on them."""

import getpass
import json
import shlex
from collections.abc import Iterator

import pytest
from support.database import Conn
from support.processes import Processes
from support.rows import row_of

from pgrun._ids import new_run_id
from pgrun.testing import ModelServer

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
def processes(dsn: str, models: ModelServer) -> Iterator[Processes]:
    with Processes(dsn, models.environ) as started:
        yield started


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


async def says(processes: Processes, *words: str, code: int = 0) -> str:
    """What a command prints."""
    command = processes.pgrun(*words)
    assert await command.ends() == code, command
    return command.output


async def test_what_show_says_can_be_typed_as_it_stands(processes: Processes, conn: Conn, run_id: str) -> None:
    listed = await says(processes, "ls", "--status", "paused")
    assert "waits_for" in listed
    assert "confirmation of refund, external of sign, user_input of ship" in listed
    shown = await says(processes, "show", run_id)
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
    outputs = [await says(processes, *words) for words in commands[:3]]
    assert outputs == [f"{run_id} paused\n", f"{run_id} paused\n", f"{run_id} pending\n"]
    shown = await says(processes, "show", run_id)
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


async def test_all_can_be_rejected_at_once_with_a_reason(processes: Processes, conn: Conn, run_id: str) -> None:
    answer = json.loads(await says(processes, "reject", run_id, "--note", "it's too much", "--json"))
    assert answer == {"run_id": run_id, "status": "pending"}
    decided = row_of(conn, run_id)["requirements"]
    assert [(each["approved"], each["note"]) for each in decided] == [(False, "it's too much")] * 3


async def test_what_cannot_be_is_refused_and_says_what_can(processes: Processes, conn: Conn, run_id: str) -> None:
    for words, code, words_of_error in (
        (("approve", run_id), 2, "is executed elsewhere: say what it returned"),
        (("approve", run_id, "--call", "call_9"), 2, "It waits for: call_1 (confirmation of refund), call_2"),
        (("approve", run_id, "--call", "call_3", "--input", "[1]"), 2, "--input must be a JSON object"),
        (("approve", run_id, "--call", "call_3", "--input", "{"), 2, "--input is no JSON"),
        (("approve", "nothing"), 2, "is not a UUID"),
        (("reject", new_run_id()), 1, "exists"),
    ):
        assert words_of_error in await says(processes, *words, code=code)
    assert row_of(conn, run_id)["requirements"] == WAITS
    await says(processes, "cancel", run_id)
    assert "is cancelled: it waits for nobody" in await says(processes, "approve", run_id, code=2)
