-- The video that a running meeting watches, as JSON that the room writes and reads.
ALTER TABLE kept_rooms ADD COLUMN watch TEXT;
