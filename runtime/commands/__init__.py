"""One file per console command, and what commands share."""
