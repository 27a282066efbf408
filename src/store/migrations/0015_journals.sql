-- The place in the journal of a room that several nodes shared, from which a node took what is stored here, or to which it
-- carries it over: epoch, node and number of the entry. A room that only a single node ever had has none.
ALTER TABLE kept_rooms ADD COLUMN journal TEXT;
