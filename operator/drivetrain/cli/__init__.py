"""The command line: `drivetrain`, also as the kubectl plugin `kubectl drivetrain`."""
