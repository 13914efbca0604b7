"""The event-driven shell: Kopf wakes a keyed queue, the queue runs reconciles."""
