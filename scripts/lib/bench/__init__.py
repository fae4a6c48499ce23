"""scripts/bench: what is measured (intake, cold, turns, growth), with what (measuring, peers), and what comes of it
(report, plots)."""
