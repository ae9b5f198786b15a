"""What people and programs read: lines for a log, bars for a terminal, JSON documents and lines of JSON."""
