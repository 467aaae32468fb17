"""Which variant fits which machine, and why: functions on values."""
