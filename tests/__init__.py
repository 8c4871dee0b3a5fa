"""Tests of allspark_mmseg."""

import pytest

pytest.register_assert_rewrite('tests.helpers')
