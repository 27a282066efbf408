-- What users report. What lists show stands apart from the JSON, which can be megabytes.
CREATE TABLE reports (
    id          TEXT PRIMARY KEY NOT NULL,
    kind        TEXT NOT NULL,
    created     TEXT NOT NULL,
    room        TEXT,
    meeting_id  TEXT,
    identity_id TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    user_agent  TEXT NOT NULL,
    url         TEXT NOT NULL,
    cut_entries BIGINT NOT NULL,
    bytes       BIGINT NOT NULL
);

CREATE INDEX reports_by_age ON reports (created, id, bytes);

CREATE TABLE report_histories (
    report_id TEXT PRIMARY KEY NOT NULL REFERENCES reports (id) ON DELETE CASCADE,
    json      TEXT NOT NULL
);

-- The queue of the webhook. state: waiting, delivered or dead; a delivered card is emptied. A card
-- that waits outlives its report: it was promised at least once.
CREATE TABLE deliveries (
    report_id  TEXT PRIMARY KEY NOT NULL,
    card       TEXT NOT NULL,
    state      TEXT NOT NULL,
    attempts   BIGINT NOT NULL,
    created    TEXT NOT NULL,
    next_try   TEXT NOT NULL,
    last_error TEXT
);

CREATE INDEX deliveries_by_time ON deliveries (state, next_try);

-- These two, and their columns, have the reference's names; its ids are numbers.
CREATE TABLE "AnalyticsRefreshes" (
    id       TEXT PRIMARY KEY NOT NULL,
    created  TEXT NOT NULL,
    modified TEXT NOT NULL,
    deleted  TEXT,
    version  TEXT NOT NULL
);

CREATE INDEX refreshes_by_age ON "AnalyticsRefreshes" (created);

CREATE TABLE "AnalyticsSimpleCallFeedback" (
    id                  TEXT PRIMARY KEY NOT NULL,
    created             TEXT NOT NULL,
    modified            TEXT NOT NULL,
    deleted             TEXT,
    version             TEXT NOT NULL,
    "experiencedIssues" INTEGER NOT NULL,
    "meetingId"         TEXT REFERENCES "Meetings" (id)
);

CREATE INDEX call_feedback_by_age ON "AnalyticsSimpleCallFeedback" (created);

CREATE INDEX meetings_by_age ON "Meetings" (created, id);
