"""Failed assertions of the kit show their values, as those of tests do."""

import pytest

pytest.register_assert_rewrite("workers.conformance")
