-- Keys that were rotated, and turns that somebody else than the owner asked for.

-- The key that took this one's place. A key is rotated once; its successor is rotated next.
ALTER TABLE api_keys ADD COLUMN replaced_by uuid;

-- Who asked for the turn and pays for it, if that is not its owner but somebody who was granted to write. The turn is
-- the conversation's, hence its owner's.
ALTER TABLE responses ADD COLUMN caller text;
