"""Failed assertions of the shared checks show their values, as those of tests do."""

import pytest

pytest.register_assert_rewrite("tests.providers.runner", "workers.conformance")
