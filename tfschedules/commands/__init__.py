"""What the command line runs: `tfschedules demo` and `tfschedules plot`."""
