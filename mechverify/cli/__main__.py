"""`python -m mechverify.cli`, as `mechverify`."""

from mechverify.cli import main

main()
