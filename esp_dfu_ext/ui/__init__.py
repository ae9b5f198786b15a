"""What people see: `console` prints to stdout and stderr, the views show a flash in lines or in bars."""
