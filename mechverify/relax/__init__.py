"""Bounds of values, fast and untrusted: the kernel's steps on torch tensors, without outward rounding."""
