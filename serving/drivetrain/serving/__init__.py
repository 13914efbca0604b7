"""The endpoint: answers with actions, logs each decision, and gathers the evidence that promotes or rejects."""
