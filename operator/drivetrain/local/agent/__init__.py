"""The agent: what KubeRay and the kubelet are in a cluster, carried out with the one Ray instance of this machine.

observe (mirror.py, ray_api.py) -> decide (jobs.py, services.py, clusters.py, pods.py; pure) -> apply (loop.py).
"""
