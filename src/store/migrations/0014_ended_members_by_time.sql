-- Each end of a meeting deletes what is too old, without reading what is not.
CREATE INDEX ended_members_by_time ON ended_members (ended);
