"""Bytes: Katib's messages and gRPC health in a private descriptor pool, method paths, client stubs and servicer bases.

Whatever knows protobuf stands here. Beside ``kubeflow-katib``, whose generated code registers the same names in
protobuf's default pool, nothing collides, in either order of import.
"""
