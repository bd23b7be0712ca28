"""The rivals' side of the workloads: each module runs in its rival's environment and is imported by nothing of ours."""
