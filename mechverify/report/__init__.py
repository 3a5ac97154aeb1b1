"""Pictures, tables and JSON of checked theorems."""
