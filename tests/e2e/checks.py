"""What was checked, and how it went: one line each."""

import contextlib
import traceback


class Checks:
    """Counts checks and says each on its line."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    @contextlib.contextmanager
    def check(self, name):
        """Passes if its body does."""
        try:
            yield
        except Exception as error:
            self.failed += 1
            print(f"not ok - {name}", flush=True)
            for line in str(error).splitlines()[:20] or [type(error).__name__]:
                print(f"    {line}")
            if not isinstance(error, (AssertionError, TimeoutError)) and type(error).__name__ != "Refused":
                print("    " + traceback.format_exc().replace("\n", "\n    "), flush=True)
        else:
            self.passed += 1
            print(f"ok - {name}", flush=True)

    def closing_line(self):
        verdict = "FAILED" if self.failed else "PASSED"
        return f"e2e: {verdict}: {self.passed} passed, {self.failed} failed"


def same(found, wanted, what):
    """Fails unless the two are equal, and shows both."""
    assert found == wanted, f"{what}:\n  wanted {wanted!r}\n  found  {found!r}"
