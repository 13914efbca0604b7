"""The resources of `drivetrain.dev/v1alpha1`, one module per kind."""
