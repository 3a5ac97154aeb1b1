"""What is written down: a claim, its proof and its conclusion, as data. The reader is the kernel."""
