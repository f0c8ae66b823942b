"""Holds what every layer needs: errors for people, progress, device choice, folders."""
