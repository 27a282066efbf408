-- The rules of a running meeting, as JSON that the room writes and reads.
ALTER TABLE kept_rooms ADD COLUMN moderation TEXT;
