"""Programs for one GPU: what it can do, where a step spends its time, which choices are fastest."""
