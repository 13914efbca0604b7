"""Evidence: sequential comparison, drift and policy value; pure numerics without I/O, clock or hidden randomness."""
