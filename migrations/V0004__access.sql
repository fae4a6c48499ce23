-- Keys that were rotated, and grants as their grantees list them.

-- The key that took this one's place. A key is rotated once; its successor is rotated next.
ALTER TABLE api_keys ADD COLUMN replaced_by uuid;
