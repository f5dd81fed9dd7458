-- Ids are UUIDs of version 7 in text, so that their order is the order of time.
-- `record` holds what nothing is searched by, as JSON.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

INSERT INTO meta (key, value) VALUES ('generation', 0);

CREATE TABLE hosts (
    id         TEXT PRIMARY KEY,
    endpoint   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    version    TEXT NOT NULL
) STRICT;

CREATE TABLE vms (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    host_id TEXT NOT NULL
) STRICT;
CREATE INDEX vms_by_name ON vms (name);
CREATE INDEX vms_by_host ON vms (host_id);

CREATE TABLE snapshots (
    id       TEXT PRIMARY KEY,
    vm_id    TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    record   TEXT NOT NULL,
    UNIQUE (vm_id, name)
) STRICT;
CREATE INDEX snapshots_by_vm ON snapshots (vm_id, id);

CREATE TABLE operations (
    id       TEXT PRIMARY KEY,
    vm_id    TEXT NOT NULL,
    state    TEXT NOT NULL,
    revision INTEGER NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE INDEX operations_by_vm ON operations (vm_id, id);
CREATE INDEX operations_by_state ON operations (state, id);

CREATE TABLE requests (
    id           TEXT PRIMARY KEY,
    fingerprint  TEXT NOT NULL,
    operation_id TEXT NOT NULL REFERENCES operations (id),
    accepted_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    revision     INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_id        TEXT,
    operation_id TEXT,
    record       TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_vm ON events (vm_id, revision);
CREATE INDEX events_by_operation ON events (operation_id, revision);

-- The audit log is only ever added to. The third is for REPLACE, which deletes without a trigger.
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'the audit log is not changed');
END;
CREATE TRIGGER events_are_kept BEFORE DELETE ON events BEGIN
    SELECT RAISE(ABORT, 'nothing is taken out of the audit log');
END;
CREATE TRIGGER events_are_new BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE revision = NEW.revision) BEGIN
    SELECT RAISE(ABORT, 'nothing is replaced in the audit log');
END;
