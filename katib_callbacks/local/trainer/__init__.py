"""Kubeflow Trainer on one machine: its OptimizationJob, and the status server that its trials report to."""
