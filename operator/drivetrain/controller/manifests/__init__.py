"""Pure renderers: typed resources in, Kubernetes objects out; equal input gives equal bytes."""
