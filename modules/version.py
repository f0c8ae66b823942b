"""The version number, in one place."""

VERSION = "0.1.0"
