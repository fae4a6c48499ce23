"""What scripts/bootstrap, deploy, smoke-test, swap, rollback, rotate and emergency-deny share."""
