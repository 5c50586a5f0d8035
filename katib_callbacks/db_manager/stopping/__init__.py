"""Early stopping: what trials say of their epochs, the policies that judge it, and decisions that stay."""
