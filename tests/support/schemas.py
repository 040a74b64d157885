"""What a schema consists of, as the catalogue has it."""

from support.database import Conn

_PARTS = {
    "columns": """
        select c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          from pg_class c join pg_attribute a on a.attrelid = c.oid
          left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
         where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0""",
    "relations": """
        select relname, relkind, obj_description(oid, 'pg_class'), case relkind when 'v' then pg_get_viewdef(oid) end
          from pg_class where relnamespace = %(schema)s::regnamespace""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
         where connamespace = %(schema)s::regnamespace""",
    "indexes": "select indexname, indexdef from pg_indexes where schemaname = %(schema)s",
    "triggers": """
        select tgname, pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
         where c.relnamespace = %(schema)s::regnamespace and not tgisinternal""",
    "functions": """
        select proname, pg_get_functiondef(oid), obj_description(oid, 'pg_proc') from pg_proc
         where pronamespace = %(schema)s::regnamespace""",
}


def contents(conn: Conn, schema: str) -> dict[str, list[str]]:
    """Everything in a schema, each thing as one text, with the schema's own name left out."""
    name = "pgrun" if schema == "pgrun" else f'"{schema}"'
    found = {}
    for part, query in _PARTS.items():
        rows = conn.execute(query.encode(), {"schema": schema}).fetchall()
        texts = [" | ".join(map(str, row.values())) for row in rows]
        for spelled in (f"{name}.", f"{schema}."):
            texts = [text.replace(spelled, "") for text in texts]
        found[part] = sorted(text.replace(f"{schema}_", "") for text in texts)
    return found
