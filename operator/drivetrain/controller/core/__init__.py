"""Pure decisions: what is observed goes in, a Plan comes out; no client, clock, randomness or I/O."""
