"""The number of a model that is put back when training is over, in frameworks that do that."""

import pytest

SCORES = [0.5, 0.875, 0.75, 0.625]


@pytest.mark.parametrize("is_ours_first", [True, False])
@pytest.mark.parametrize("report", ["final", "kept"])
def test_the_row_of_the_model_that_is_put_back_is_reported(driver, rows, warnings_of, report, is_ours_first):
    callback = driver.callback([driver.score, driver.loss], report=report)
    training = driver.trainer(callback, scores=SCORES, epochs=4, keeps="restored", is_ours_first=is_ours_first)
    training.train()
    assert training.held_epoch == 2
    assert rows() == [(driver.score, 0.875), (driver.loss, pytest.approx(training.losses[1]))]
    assert warnings_of() == []
