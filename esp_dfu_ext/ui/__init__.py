"""Everything people see: `console` writes to stdout and stderr, the views show a flash in lines or bars."""
