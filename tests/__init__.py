"""The test suite; mirrors modules/ and ui/."""
