"""What every layer stands on: errors for people, progress, device choice, folders."""
