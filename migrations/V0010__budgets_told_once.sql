-- The highest share of a budget, in percent, of which a process told that it was spent: whoever raises it tells, and of any
-- number of processes one does.
ALTER TABLE budgets ADD COLUMN told_percent smallint NOT NULL DEFAULT 0;
