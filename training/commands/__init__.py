"""The console command `cast-train`, one file per subcommand; everything heavy is imported when one runs."""
