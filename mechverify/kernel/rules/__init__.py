"""The rules of proof. Each takes a job and a part of the domain and returns how many of the part's
inputs are right: a lower and an upper bound, both proved, as exact integers."""
