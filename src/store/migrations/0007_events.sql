-- Events for programs outside. The log, from which streams resume: positions have no gaps but for what was removed
-- at its beginning. total is the sum of the bodies' bytes until then.
CREATE TABLE event_log (
    position BIGINT PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    room     TEXT,
    kind     TEXT NOT NULL,
    body     TEXT NOT NULL,
    total    BIGINT NOT NULL
);

CREATE INDEX event_log_by_total ON event_log (total);

-- The number of the last event of each meeting that runs.
CREATE TABLE event_meetings (
    meeting_id TEXT NOT NULL PRIMARY KEY,
    room       TEXT NOT NULL,
    number     BIGINT NOT NULL
);

-- The time until which events are recorded without a webhook, because a stream was open.
CREATE TABLE event_recording (
    until TEXT NOT NULL
);

-- Messages of one lane are delivered in order of their positions: state 'blocked' waits for those before it. The
-- messages of webhooks are removed when they are delivered.
ALTER TABLE deliveries ADD COLUMN lane TEXT;
ALTER TABLE deliveries ADD COLUMN position BIGINT NOT NULL DEFAULT 0;

CREATE INDEX deliveries_by_lane ON deliveries (destination, lane, position) WHERE lane IS NOT NULL;
