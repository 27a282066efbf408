-- The highest owner epoch that was given out; each start takes the next one.
CREATE TABLE owner_epoch (
    epoch BIGINT NOT NULL
);

INSERT INTO owner_epoch (epoch) VALUES (0);

-- The owner that wrote the room last. A write of an older owner is refused.
ALTER TABLE kept_rooms ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;

CREATE INDEX kept_rooms_by_name ON kept_rooms (room);
