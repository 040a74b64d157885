"""Arguments that programs bring along from elsewhere, above all from agno, and what to use here instead."""

from collections.abc import Iterable

_INSTEAD = {
    "add_history_to_messages": "add_history_to_context= of the Agent",
    "audio": "OpenAI's Responses API takes no audio; send its transcript",
    "cache_session": "nothing is cached that the database may know better",
    "checkpoint": "every finished call is recorded anyway",
    "compaction": "num_history_runs= bounds what the model is shown",
    "context": "dependencies=",
    "db_engine": "db=PostgresDb(url)",
    "debug_mode": "logging.getLogger('pgrun')",
    "enable_agentic_memory": "keep what is to be remembered in session_state, with a tool",
    "enable_user_memories": "keep what is to be remembered in session_state, with a tool",
    "fallback_models": "retry=RetryPolicy(…); another model is another agent",
    "id": "name=, by which SQL and workers know an agent",
    "input_schema": "validate before the call; the input may be any data with a JSON form",
    "knowledge": "a tool that searches",
    "knowledge_filters": "a tool that searches; tell it what to look for by dependencies=",
    "memory_manager": "keep what is to be remembered in session_state, with a tool",
    "num_history_messages": "num_history_runs=",
    "num_history_responses": "num_history_runs=",
    "output_model": "parser_model=, or a second agent",
    "overwrite_db_session_state": "await agent.aset_session_state(session_id, …) before the run",
    "parse_response": "output_schema=None gives the text",
    "read_chat_history": "add_history_to_context=True",
    "reasoning": "OpenAIResponses(reasoning_effort=…)",
    "reasoning_model": "OpenAIResponses(reasoning_effort=…)",
    "response_model": "output_schema=",
    "role": "description=",
    "run_context": "user_id=, dependencies=, metadata= and session_state=",
    "search_knowledge": "a tool that searches",
    "session_id": "session_id= of each run",
    "storage": "db=",
    "store_events": "the journal, pgrun.steps, keeps every call",
    "structured_outputs": "output_schema= is always sent as a schema, unless use_json_mode=True",
    "system_message": "description= and instructions=",
    "telemetry": "nothing is sent anywhere",
    "tool_hooks": "code in the tool itself, or a decorator below @tool",
    "user_message": "the input of the run",
    "videos": "no API takes videos as input here",
    "yield_run_output": "the run itself, which arun returns",
}
_OF_AGENTS = ("add_history_to_context", "add_dependencies_to_context", "add_session_state_to_context")


def advice(unknown: Iterable[str]) -> str:
    """What to use instead of arguments that do not exist, as the end of a sentence; empty if nobody knows."""
    known = _INSTEAD | {name: f"{name}= of the Agent" for name in _OF_AGENTS}
    found = [f"instead of {name}= {known[name]}" for name in unknown if name in known]
    return f"; use {', '.join(found)}" if found else ""
