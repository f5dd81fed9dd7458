-- Tells this audit log from that of another database, for those who read on behind an event.
INSERT INTO meta (key, value) VALUES ('log', random() & 0x7fffffffffffffff);

-- What the log is searched by. NULL where the record cannot be read.
ALTER TABLE events ADD COLUMN kind TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(record) THEN record ->> '$.kind' END) VIRTUAL;
ALTER TABLE events ADD COLUMN severity TEXT
    GENERATED ALWAYS AS (CASE WHEN json_valid(record) THEN record ->> '$.severity' END) VIRTUAL;
