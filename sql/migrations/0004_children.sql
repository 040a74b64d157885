-- Children: runs that others have started and wait for, and that are of no use without them.

-- A run that has started others gives its slot back until the last of them has ended. It is parked in two steps, its row first.
-- Whoever ends a child takes that lock, too: either before, then the look at the children, a statement of its own, sees what that
-- transaction has committed; or after, then it finds the run parked. Returns whether it still was the caller's.
create function pgrun._park(run_id uuid, fence bigint, metrics jsonb) returns boolean language plpgsql as $$
begin
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           held = case when j.cancel_requested_at is null then 'children' end,
           attempt = greatest(j.attempt - 1, 0), due_at = now(), metrics = coalesce(_park.metrics, j.metrics)
     where j.run_id = _park.run_id and j.fence = _park.fence and j.status = 'running';
    if not found then
        return false;
    end if;
    perform pgrun._go_on(_park.run_id);
    perform pg_notify('pgrun_done', _park.run_id::text)
       from pgrun.jobs j where j.run_id = _park.run_id and j.finished_at is not null;
    return true;
end $$;
comment on function pgrun._park(uuid, bigint, jsonb) is 'Puts a run aside until the runs that it started have ended; false if the claim was stale.';

-- Lets a parked run go on if nothing that it started is open any more. Like _open_session it must not wait for long: the caller
-- may be a worker that has ended a child, and hold that row. What it misses open_sessions finds later.
create function pgrun._go_on(parent uuid) returns void language plpgsql set lock_timeout = '100ms' as $$
declare
    in_queue text;
begin
    perform from pgrun.jobs j where j.run_id = parent and j.finished_at is null for no key update;
    update pgrun.jobs j set held = null
     where j.run_id = parent and j.held = 'children'
       and not exists (select from pgrun.jobs c where c.parent_run_id = parent and c.finished_at is null)
    returning j.queue into in_queue;
    if found then
        perform pg_notify('pgrun_wake', in_queue);
    end if;
exception when lock_not_available then
    return;
end $$;
comment on function pgrun._go_on(uuid) is 'Lets a run that waits for its children go on once they have ended; gives up after 100 ms of waiting for a lock.';

create function pgrun._tell_parent() returns trigger language plpgsql as $$
begin
    perform pgrun._go_on(old.parent_run_id);
    return null;
end $$;
comment on function pgrun._tell_parent() is 'Trigger: when the last run that a parked one has started ends or disappears, that one goes on.';

create trigger jobs_child_ended after update of finished_at on pgrun.jobs
    for each row when (old.finished_at is null and new.finished_at is not null and old.parent_run_id is not null)
    execute function pgrun._tell_parent();

create trigger jobs_child_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and old.parent_run_id is not null)
    execute function pgrun._tell_parent();

-- What a run has started is of no use to anybody when it ends otherwise than with an answer.
create function pgrun._cancel_children() returns trigger language plpgsql as $$
begin
    perform pgrun.cancel(c.run_id) from pgrun.jobs c where c.parent_run_id = new.run_id and c.finished_at is null;
    return null;
end $$;
comment on function pgrun._cancel_children() is 'Trigger: cancels what a run has started when it fails or is cancelled.';

create trigger jobs_parent_ended after update of finished_at on pgrun.jobs
    for each row when (old.finished_at is null and new.status in ('error', 'cancelled') and old.kind = 'agent')
    execute function pgrun._cancel_children();
